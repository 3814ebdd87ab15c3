import pytest
from pydantic import ValidationError

from fleet.wiring import (
    C2cLinks,
    DevicePair,
    EndKind,
    GpuPort,
    GpuSlot,
    NicPort,
    NumaNode,
    NvSwitch,
    P2pState,
    P2pStatus,
    PcieBridge,
    PcieLevel,
    PortEnd,
    Wiring,
    wiring_problems,
)
from tests.factories import make_gpu, make_nic, make_port, make_wiring, with_pairs

TO_GPU_7 = make_port(0, end=PortEnd(kind=EndKind.GPU, index=7))
PAIR = DevicePair(a="gpu0", b="gpu1", level=PcieLevel.PIX)
PEERS = P2pStatus(a=0, b=1, read=P2pState.OK, write=P2pState.OK)


def test_plain_wiring_has_no_problem() -> None:
    assert list(wiring_problems(with_pairs(make_wiring()))) == []
    assert list(wiring_problems(Wiring())) == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"gpus": (GpuSlot(slot=0), GpuSlot(slot=0))}, "gpus[0]: stands twice; expected once"),
        ({"nics": (make_nic(1, bridge=None),) * 2}, "nics[1]: stands twice; expected once"),
        ({"nvswitches": (NvSwitch(index=2),) * 2}, "nvswitches[2]: stands twice; expected once"),
        ({"bridges": (PcieBridge(bridge=0),) * 2}, "bridges[0]: stands twice; expected once"),
        ({"numa_nodes": (NumaNode(numa=-1),) * 2}, "numa_nodes[-1]: stands twice; expected once"),
        ({"pcie_levels": (PAIR, PAIR)}, "pcie_levels[gpu0-gpu1]: stands twice; expected once"),
        ({"p2p": (PEERS, PEERS)}, "p2p[0-1]: stands twice; expected once"),
        (
            {"nics": (make_nic(0, bridge=None, ports=(NicPort(port=1),) * 2),)},
            "nics[0].ports[1]: stands twice; expected once",
        ),
        (
            {"gpus": (GpuSlot(slot=3, ports=(make_port(4), make_port(4))),)},
            "gpus[3].ports[4]: stands twice; expected once",
        ),
        (
            {"gpus": (GpuSlot(slot=0, ports=(TO_GPU_7,)),)},
            "gpus[0].ports[0].end: no gpu 7 here",
        ),
        (
            {"gpus": (make_gpu(0, bridge=5, ports=0),)},
            "gpus[0]: hangs below bridge 5, which is not there",
        ),
        ({"nics": (make_nic(0, bridge=5),)}, "nics[0]: hangs below bridge 5, which is not there"),
        (
            {"bridges": (PcieBridge(bridge=1, parent=0),)},
            "bridges[1]: hangs below bridge 0, which is not there",
        ),
        (
            {"bridges": (PcieBridge(bridge=1, parent=1),)},
            "bridges[1].parent: 1; expected an earlier bridge",
        ),
    ],
)
def test_reference_that_leads_nowhere_is_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Wiring(**fields)  # type: ignore[arg-type]
    assert problem in str(caught.value)


def test_bridges_in_a_ring_cannot_be_written() -> None:
    ring = (PcieBridge(bridge=0, parent=1), PcieBridge(bridge=1, parent=0))
    with pytest.raises(ValidationError, match="earlier bridge"):
        Wiring(bridges=ring)


def test_hidden_far_end_needs_no_gpu() -> None:
    port = make_port(0, end=PortEnd(kind=EndKind.GPU))
    assert list(wiring_problems(Wiring(gpus=(GpuSlot(slot=0, ports=(port,)),)))) == []


def test_counted_ports_are_found_by_their_far_end() -> None:
    ends = (
        PortEnd(kind=EndKind.GPU, index=3),
        PortEnd(kind=EndKind.SWITCH),
        PortEnd(kind=EndKind.DOMAIN_SWITCH, index=17),
    )
    assert [GpuPort(count=2, end=end).key for end in ends] == ["gpu3", "switch", "domain_switch17"]
    assert make_port(4).key == "4"


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (GpuSlot, {"slot": -1}),
        (GpuSlot, {"slot": 0, "memory_bytes": 0}),
        (GpuSlot, {"slot": 0, "pcie_width": 0}),
        (GpuSlot, {"slot": 0, "product_name": ""}),
        (GpuPort, {"end": {"kind": "switch"}, "bytes_per_s": 0}),
        (GpuPort, {"end": {"kind": "switch"}, "count": 0}),
        (C2cLinks, {"count": 1, "bytes_per_s": -1}),
        (NicPort, {"port": 0}),
        (DevicePair, {"a": "gpu0", "b": "cpu1", "level": "sys"}),
        (DevicePair, {"a": "gpu0", "b": "gpu1", "level": "near"}),
    ],
)
def test_nothing_unreported_can_be_zero_or_empty(
    model: type[GpuSlot], values: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(values, strict=False)
