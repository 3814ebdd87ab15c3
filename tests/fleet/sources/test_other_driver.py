"""GPUs that another kernel driver has, as a host of virtual machines keeps them for its guests."""

from pathlib import Path

import pytest

from fleet.faults import device_faults
from fleet.model import NodeSnapshot
from fleet.sources.sysfs import completed
from fleet.state import UnlistedGpu, UnlistedWhy
from tests.contracts import assert_honest
from tests.fakes.sysfs_trees import hgx_h100
from tests.fleet.sources.sysfs_snapshots import snapshot_of
from tests.fleet.sources.test_sysfs_completed import ADDRESSES, all_told, driver, lost, told

FOR_A_GUEST = UnlistedGpu(pci_address=ADDRESSES[7], why=UnlistedWhy.OTHER_DRIVER, driver="vfio-pci")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> NodeSnapshot:
    """The last GPU is kept for a guest."""
    tree = hgx_h100(tmp_path_factory.mktemp("host"))
    tree.bind(ADDRESSES[7][4:], "vfio-pci")
    return snapshot_of(tree)


def test_a_gpu_of_another_driver_is_told_as_such(kernel: NodeSnapshot) -> None:
    whole = completed(all_told(ADDRESSES[:7]), kernel)
    assert whole.unlisted_gpus == (FOR_A_GUEST,)
    assert [gpu.slot for gpu in whole.wiring.gpus] == list(range(7))
    assert device_faults(whole) == ()
    assert_honest(whole)


def test_a_gpu_of_another_driver_is_not_taken_for_a_silent_one(
    kernel: NodeSnapshot,
) -> None:
    gpus = [told(s, a) for s, a in enumerate(ADDRESSES[:6])]
    whole = completed(driver(*gpus, lost(6)), kernel)
    assert whole.wiring.gpus[6].pci_address == ADDRESSES[6]
    assert whole.unlisted_gpus == (FOR_A_GUEST,)
    assert_honest(whole)


def test_a_gpu_that_the_driver_lists_is_its_own_whoever_the_kernel_names(
    kernel: NodeSnapshot,
) -> None:
    whole = completed(all_told(), kernel)
    assert whole.wiring.gpus[7].pci_address == ADDRESSES[7]
    assert whole.unlisted_gpus == ()
    assert_honest(whole)


@pytest.mark.parametrize("name", ["vfio-pci", "nouveau", "pci-stub"])
def test_the_kernel_alone_lists_it_apart_by_its_driver(name: str, tmp_path: Path) -> None:
    tree = hgx_h100(tmp_path)
    for address in ADDRESSES:
        tree.bind(address[4:], name)
    node = snapshot_of(tree)
    assert node.wiring.gpus == ()
    assert [gpu.driver for gpu in node.unlisted_gpus] == [name] * 8
    assert device_faults(node) == ()
    assert_honest(node)


def test_a_gpu_that_no_driver_has_is_one_of_the_nodes(tmp_path: Path) -> None:
    tree = hgx_h100(tmp_path)
    (tree.root / "sys/bus/pci/devices" / ADDRESSES[7][4:] / "driver").unlink()
    node = snapshot_of(tree)
    assert [gpu.pci_address for gpu in node.wiring.gpus] == ADDRESSES
    assert node.unlisted_gpus == ()
