"""Driver and kernel of one node together: what is filled in, what stays, what nobody tells."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.fields import Absence, AbsenceReason, PciAddress, leaves
from fleet.model import NodeSnapshot
from fleet.sources.sysfs import completed
from fleet.state import UnlistedGpu, UnlistedWhy
from fleet.wiring import (
    DevicePair,
    GpuSlot,
    LinkState,
    NicPort,
    NicSlot,
    NumaNode,
    NvSwitch,
    PcieBridge,
    PcieLevel,
    Wiring,
)
from tests.contracts import assert_honest
from tests.factories import absent, make_gpu, make_snapshot, replaced
from tests.fakes.sysfs_trees import SWITCHED_GPUS, SysTree, flat_guest, hgx_h100
from tests.fleet.sources.sysfs_snapshots import levels_of, reason_of, snapshot_of

GPU_LOST, UNDECODABLE = AbsenceReason.GPU_LOST, AbsenceReason.UNDECODABLE
ADDRESSES = [PciAddress(f"00000000:{bus + 4:02x}:00.0") for bus in SWITCHED_GPUS]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> NodeSnapshot:
    return snapshot_of(hgx_h100(tmp_path_factory.mktemp("hgx")))


def told(slot: int, address: PciAddress | None, **special: Any) -> GpuSlot:
    """A GPU as NVML tells it: no bridge, no place in the tree."""
    return make_gpu(slot, pci_address=address, bridge=None, **special)


def lost(slot: int) -> GpuSlot:
    """A GPU of which the driver gives the number alone."""
    return GpuSlot(slot=slot)


def driver(*gpus: GpuSlot, **special: Any) -> NodeSnapshot:
    """What the driver says of a node; it lists no NICs and no bridges."""
    wiring = Wiring(gpus=gpus, nvswitches=(NvSwitch(index=0, pci_address=None),))
    plain: dict[str, Any] = {
        "absences": (
            *absent("versions", "allocations", "sections[*].collected_at", "wiring.nics"),
            *(a for gpu in gpus if gpu == lost(gpu.slot) for a in absences_of_a_lost_gpu(gpu.slot)),
        )
    }
    return make_snapshot("node1", wiring, **plain | special)


def absences_of_a_lost_gpu(slot: int) -> tuple[Absence, ...]:
    names = ("product_name", "compute_capability", "memory_bytes", "pci_address", "numa")
    paths = [f"wiring.gpus[{slot}].{n}" for n in (*names, "pcie_generation", "pcie_width")]
    return absent(*paths, reason=GPU_LOST)


def all_told(addresses: Sequence[PciAddress] = ADDRESSES) -> NodeSnapshot:
    return driver(*(told(slot, address) for slot, address in enumerate(addresses)))


def test_the_kernel_gives_the_places_and_the_network(kernel: NodeSnapshot) -> None:
    whole = completed(all_told(), kernel)
    assert whole.wiring.bridges == kernel.wiring.bridges
    assert [g.bridge for g in whole.wiring.gpus] == [g.bridge for g in kernel.wiring.gpus]
    assert whole.wiring.nics == kernel.wiring.nics
    assert (whole.nics, whole.nic_states) == (kernel.nics, kernel.nic_states)
    assert whole.wiring.pcie_levels == kernel.wiring.pcie_levels
    assert [n.cpu_affinity for n in whole.wiring.numa_nodes] == ["0-55,112-167", "56-111,168-223"]
    assert [section.key for section in whole.sections] == [
        "devices/nvml",
        "devices/sysfs",
        "network/sysfs",
    ]
    assert_honest(whole)


def test_the_drivers_word_stays(kernel: NodeSnapshot) -> None:
    said = DevicePair(a="gpu0", b="gpu1", level=PcieLevel.PHB)
    base = driver(
        *(told(s, a, numa=7, pcie_width=8, pcie_generation=3) for s, a in enumerate(ADDRESSES))
    )
    base = base.model_copy(
        update={
            "wiring": base.wiring.model_copy(
                update={
                    "pcie_levels": (said,),
                    "numa_nodes": (NumaNode(numa=0, cpu_affinity="0-1"),),
                }
            )
        }
    )
    whole = completed(base, kernel).wiring
    assert {(g.numa, g.pcie_width, g.pcie_generation) for g in whole.gpus} == {(7, 8, 3)}
    assert whole.pcie_levels[0] == said
    assert [pair.key for pair in whole.pcie_levels].count("gpu0-gpu1") == 1
    assert whole.numa_nodes[0].cpu_affinity == "0-1"
    assert whole.numa_nodes[0].vendor == "GenuineIntel"


def test_slots_are_the_drivers(kernel: NodeSnapshot) -> None:
    whole = completed(all_told(ADDRESSES[::-1]), kernel)
    by_slot = {gpu.slot: gpu for gpu in whole.wiring.gpus}
    assert by_slot[7].pci_address == ADDRESSES[0]
    assert by_slot[7].bridge == kernel.wiring.gpus[0].bridge
    nic = next(n.slot for n in kernel.wiring.nics if n.pci_address == "00000000:1a:00.0")
    levels = levels_of(whole)
    assert levels[f"gpu7-nic{nic}"] is PcieLevel.PIX
    assert levels[f"gpu0-nic{nic}"] is PcieLevel.SYS
    assert levels.keys() == levels_of(kernel).keys(), "lower slot first, as a matrix is read"
    assert_honest(whole)


def test_a_gpu_that_does_not_answer_is_the_one_that_is_left_on_the_bus(
    kernel: NodeSnapshot,
) -> None:
    gpus = [told(s, a) if s != 3 else lost(3) for s, a in enumerate(ADDRESSES)]
    whole = completed(driver(*gpus), kernel)
    third = whole.wiring.gpus[3]
    assert third.pci_address == ADDRESSES[3]
    assert (third.numa, third.bridge) == (0, kernel.wiring.gpus[3].bridge)
    assert (third.pcie_generation, third.pcie_width) == (5, 16)
    assert reason_of(whole, "wiring.gpus[3].product_name") is GPU_LOST
    assert [a.path for a in whole.absences if a.path == "wiring.gpus[3].pci_address"] == []
    assert whole.unlisted_gpus == ()
    assert_honest(whole)


def test_two_that_do_not_answer_are_told_apart_by_the_order_of_the_bus(
    kernel: NodeSnapshot,
) -> None:
    gpus = [told(s, a) if s not in (2, 6) else lost(s) for s, a in enumerate(ADDRESSES)]
    whole = completed(driver(*gpus), kernel)
    assert [gpu.pci_address for gpu in whole.wiring.gpus] == ADDRESSES
    assert_honest(whole)


def test_two_that_do_not_answer_stay_unknown_where_the_driver_has_its_own_order(
    kernel: NodeSnapshot,
) -> None:
    order = ADDRESSES[::-1]
    gpus = [told(s, a) if s not in (2, 6) else lost(s) for s, a in enumerate(order)]
    whole = completed(driver(*gpus), kernel)
    assert whole.wiring.gpus[2].pci_address is None
    assert reason_of(whole, "wiring.gpus[2].pci_address") is GPU_LOST
    assert whole.unlisted_gpus == ()
    assert reason_of(whole, "unlisted_gpus") is UNDECODABLE
    assert_honest(whole)


def test_an_address_is_not_guessed_where_more_are_left_than_are_missing(
    kernel: NodeSnapshot,
) -> None:
    """Six GPUs of the driver, one silent; three are left on the bus."""
    gpus = [told(s, a) for s, a in enumerate(ADDRESSES[:5])]
    whole = completed(driver(*gpus, lost(5)), kernel)
    assert whole.wiring.gpus[5].pci_address is None
    assert whole.unlisted_gpus == ()
    assert reason_of(whole, "unlisted_gpus") is UNDECODABLE
    assert_honest(whole)


def test_a_gpu_on_the_bus_that_the_driver_does_not_list_is_told(kernel: NodeSnapshot) -> None:
    whole = completed(all_told(ADDRESSES[:7]), kernel)
    assert [gpu.slot for gpu in whole.wiring.gpus] == list(range(7))
    assert whole.unlisted_gpus == (
        UnlistedGpu(pci_address=ADDRESSES[7], why=UnlistedWhy.NOT_LISTED),
    )
    assert not [key for key in levels_of(whole) if "gpu7" in key]
    assert_honest(whole)


def test_an_excluded_gpu_is_not_told_twice_nor_taken_for_a_silent_one(
    kernel: NodeSnapshot,
) -> None:
    excluded = UnlistedGpu(pci_address=ADDRESSES[7], why=UnlistedWhy.EXCLUDED)
    gpus = [told(s, a) for s, a in enumerate(ADDRESSES[:6])]
    whole = completed(driver(*gpus, lost(6), unlisted_gpus=(excluded,)), kernel)
    assert whole.unlisted_gpus == (excluded,)
    assert whole.wiring.gpus[6].pci_address == ADDRESSES[6]
    assert_honest(whole)


def test_a_container_that_hides_the_bus_loses_nothing_of_the_drivers(tmp_path: Path) -> None:
    base = all_told()
    whole = completed(base, snapshot_of(tmp_path))
    assert whole.wiring.gpus == base.wiring.gpus
    assert whole.unlisted_gpus == ()
    assert AbsenceReason.UNSUPPORTED in {
        a.reason for a in whole.absences if a.path == "wiring.nics"
    }
    assert reason_of(whole, "unlisted_gpus") is AbsenceReason.UNSUPPORTED
    assert_honest(whole)


def test_a_gpu_that_the_kernel_does_not_list_keeps_its_address(kernel: NodeSnapshot) -> None:
    elsewhere = PciAddress("00000001:00:00.0")
    whole = completed(all_told([*ADDRESSES[:7], elsewhere]), kernel)
    assert whole.wiring.gpus[7].pci_address == elsewhere
    assert whole.wiring.gpus[7].bridge is None
    assert [gpu.pci_address for gpu in whole.unlisted_gpus] == [ADDRESSES[7]]
    assert_honest(whole)


def test_absences_that_were_filled_go_and_the_others_stay(kernel: NodeSnapshot) -> None:
    gpus = [told(s, a, numa=None, memory_bytes=None) for s, a in enumerate(ADDRESSES)]
    base = driver(*gpus)
    lacks = absent("wiring.gpus[*].numa", "wiring.gpus[*].memory_bytes")
    whole = completed(base.model_copy(update={"absences": (*base.absences, *lacks)}), kernel)
    paths = {absence.path for absence in whole.absences}
    assert "wiring.gpus[*].numa" not in paths
    assert "wiring.gpus[*].memory_bytes" in paths
    assert "wiring.nics" not in paths
    assert_honest(whole)


def test_what_the_kernel_lacks_and_the_driver_has_is_not_absent(tmp_path: Path) -> None:
    tree = hgx_h100(tmp_path)
    tree.numa(0, "none of these")
    base = all_told()
    known = NumaNode(numa=0, cpu_affinity="0-55")
    base = base.model_copy(update={"wiring": replaced(base.wiring, "numa_nodes", (known,))})
    whole = completed(base, snapshot_of(tree))
    assert whole.wiring.numa_nodes[0].cpu_affinity == "0-55"
    assert_honest(whole)
    assert not [a.path for a in whole.absences if "cpu_affinity" in a.path]


def test_the_kernels_silence_about_uuids_does_not_hide_the_drivers_reason(
    kernel: NodeSnapshot,
) -> None:
    base = driver(*(told(s, a) for s, a in enumerate(ADDRESSES)))
    nameless = tuple(gpu.model_copy(update={"uuid": None}) for gpu in base.gpus)
    refused = absent("gpus[*].uuid", reason=AbsenceReason.NO_PERMISSION)
    base = base.model_copy(update={"gpus": nameless, "absences": (*base.absences, *refused)})
    assert reason_of(completed(base, kernel), "gpus[4].uuid") is AbsenceReason.NO_PERMISSION


def test_what_the_kernel_was_to_fill_and_could_not_is_told_with_the_drivers_slot(
    tmp_path: Path,
) -> None:
    tree = hgx_h100(tmp_path)
    (folder,) = tmp_path.glob("sys/devices/pci0000:15/**/0000:19:00.0")
    (folder / "numa_node").write_text("-1\n")
    gpus = [told(s, a, numa=None) for s, a in enumerate(ADDRESSES[::-1])]
    whole = completed(driver(*gpus), snapshot_of(tree))
    assert [gpu.numa for gpu in whole.wiring.gpus] == [1, 1, 1, 1, 0, 0, 0, None]
    assert reason_of(whole, "wiring.gpus[7].numa") is AbsenceReason.UNSUPPORTED
    assert_honest(whole)


def test_a_flat_guest_keeps_the_levels_of_the_driver(tmp_path: Path) -> None:
    addresses = [PciAddress(f"00000000:{1 + i:02x}:00.0") for i in range(2)]
    base = all_told(addresses)
    pair = DevicePair(a="gpu0", b="gpu1", level=PcieLevel.PHB)
    base = base.model_copy(
        update={"wiring": base.wiring.model_copy(update={"pcie_levels": (pair,)})}
    )
    whole = completed(base, snapshot_of(flat_guest(tmp_path / "a", gpus=2, hcas=2)))
    assert whole.wiring.pcie_levels == (pair,)
    assert reason_of(whole, "wiring.pcie_levels") is AbsenceReason.UNSUPPORTED
    alone = completed(base, without_nics(snapshot_of(flat_guest(tmp_path / "b", gpus=2, hcas=0))))
    assert [a for a in alone.absences if a.path == "wiring.pcie_levels"] == []


def without_nics(snapshot: NodeSnapshot) -> NodeSnapshot:
    wiring = replaced(snapshot.wiring, "nics", ())
    absences = tuple(a for a in snapshot.absences if "nics" not in a.path)
    bare = {"wiring": wiring, "nics": (), "nic_states": (), "absences": absences}
    return snapshot.model_copy(update=bare)


def test_a_node_without_nics_is_one_once_the_kernel_was_asked(tmp_path: Path) -> None:
    tree = SysTree(tmp_path)
    tree.numa(0, "0-3")
    tree.pci("pci0000:15/0000:16:00.0", vendor="0x10de", device="0x2330", class_code="0x030200")
    tree.write("/sys/class/net/lo/type", "772")
    whole = completed(all_told([PciAddress("00000000:16:00.0")]), snapshot_of(tree))
    assert whole.wiring.nics == ()
    assert [a for a in whole.absences if a.path == "wiring.nics"] == []


def test_nvswitches_that_no_link_reaches_are_added(kernel: NodeSnapshot) -> None:
    base = all_told()
    reached = NvSwitch(index=0, pci_address=PciAddress("00000000:85:00.0"))
    base = base.model_copy(update={"wiring": replaced(base.wiring, "nvswitches", (reached,))})
    switches = completed(base, kernel).wiring.nvswitches
    assert [(s.index, s.pci_address) for s in switches] == [
        (0, "00000000:85:00.0"),
        (1, "00000000:83:00.0"),
        (2, "00000000:84:00.0"),
        (3, "00000000:86:00.0"),
    ]


def test_a_switch_that_the_driver_hides_is_not_counted_twice(kernel: NodeSnapshot) -> None:
    assert completed(all_told(), kernel).wiring.nvswitches == all_told().wiring.nvswitches


def with_matrix(names: Sequence[str]) -> NodeSnapshot:
    """A driver that prints a matrix with NICs, as nvidia-smi does."""
    base = all_told()
    nics = tuple(
        NicSlot(slot=i, ports=(NicPort(port=1, name=name, state=LinkState.UNREPORTED),))
        for i, name in enumerate(names)
    )
    pair = DevicePair(a="gpu0", b="nic0", level=PcieLevel.PHB)
    wiring = base.wiring.model_copy(update={"nics": nics, "pcie_levels": (pair,)})
    lacks = absent("wiring.nics[*].pci_address", "wiring.nics[*].numa")
    lacks += absent("wiring.nics[*].ports[*].bytes_per_s")
    kept = tuple(a for a in base.absences if a.path != "wiring.nics")
    return base.model_copy(update={"wiring": wiring, "absences": (*kept, *lacks)})


def test_nics_of_a_matrix_become_the_kernels_and_the_matrix_keeps_its_word(
    kernel: NodeSnapshot,
) -> None:
    whole = completed(with_matrix(["mlx5_1", "mlx5_0"]), kernel)
    slot = next(n.slot for n in kernel.wiring.nics if n.ports[0].name == "mlx5_1")
    assert whole.wiring.nics == kernel.wiring.nics
    assert levels_of(whole)[f"gpu0-nic{slot}"] is PcieLevel.PHB
    assert_honest(whole)


def test_nics_that_the_kernel_does_not_list_are_kept(kernel: NodeSnapshot) -> None:
    base = with_matrix(["mlx5_1", "mlx5_99"])
    whole = completed(base, kernel)
    assert whole.wiring.nics == base.wiring.nics
    assert whole.nic_states == base.nic_states
    assert UNDECODABLE in {a.reason for a in whole.absences if a.path == "wiring.nics"}
    assert levels_of(whole)["gpu0-nic0"] is PcieLevel.PHB
    assert "gpu0-nic2" not in levels_of(whole)
    assert_honest(whole)


def test_a_tree_that_the_driver_told_is_not_mixed_with_the_kernels(kernel: NodeSnapshot) -> None:
    own = PcieBridge(bridge=0, numa=0)
    base = all_told()
    gpus = tuple(gpu.model_copy(update={"bridge": 0}) for gpu in base.wiring.gpus)
    base = base.model_copy(
        update={"wiring": base.wiring.model_copy(update={"bridges": (own,), "gpus": gpus})}
    )
    whole = completed(base, kernel)
    assert whole.wiring.bridges == (own,)
    assert {gpu.bridge for gpu in whole.wiring.gpus} == {0}
    assert {nic.bridge for nic in whole.wiring.nics} == {None}


@settings(deadline=None, max_examples=25)
@given(
    order=st.permutations(range(8)),
    present=st.sets(st.integers(0, 7), min_size=1),
    silent=st.sets(st.integers(0, 7)),
    fields=st.sets(st.sampled_from(["numa", "pcie_generation", "pcie_width", "memory_bytes"])),
)
def test_whatever_the_driver_lacks_nothing_of_it_is_lost(
    kernel: NodeSnapshot, order: list[int], present: set[int], silent: set[int], fields: set[str]
) -> None:
    addresses = [ADDRESSES[i] for i in order if i in present]
    blank: dict[str, Any] = dict.fromkeys(sorted(fields))
    gpus = [told(s, a, **blank) if s not in silent else lost(s) for s, a in enumerate(addresses)]
    base = driver(*gpus)
    lacks = absent(*(f"wiring.gpus[*].{name}" for name in sorted(fields)))
    base = base.model_copy(update={"absences": (*base.absences, *lacks)})
    whole = completed(base, kernel)
    assert {leaf for leaf in leaves(base) if not leaf[0].startswith("absences")} <= set(
        leaves(whole)
    )
    places = [gpu.pci_address for gpu in whole.wiring.gpus if gpu.pci_address]
    places += [gpu.pci_address for gpu in whole.unlisted_gpus]
    assert len(set(places)) == len(places)
    assert_honest(whole)
