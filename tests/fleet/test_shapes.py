from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.errors import SnapshotError
from fleet.fields import PciAddress, ShapeId, leaves
from fleet.merge import snapshots_of
from fleet.model import Deviation
from fleet.shapes import (
    find_shapes,
    fit_to_shape,
    fit_to_shapes,
    node_wirings,
    wiring_digest,
    wiring_of,
)
from fleet.sources.machines import machine_from_name
from fleet.wiring import (
    EndKind,
    GpuPort,
    GpuSlot,
    GpuVendor,
    LinkLayer,
    LinkState,
    NodeShape,
    P2pState,
    PortEnd,
    Wiring,
)
from tests.factories import (
    address,
    make_fleet,
    make_gpu,
    make_nic,
    make_port,
    make_snapshot,
    make_wiring,
    replaced,
    with_pairs,
)

MODELS = ("dgx-h100", "dgx1-v100", "gb200-nvl72", "pcie-l40s")
HEALTHY = {name: with_pairs(machine_from_name(name).wiring()) for name in MODELS}


class Damaged:
    """A broken node: in its own slots, and as a driver that numbers what it sees tells it."""

    def __init__(self, true: Wiring, told: Wiring) -> None:
        self.true, self.told = true, told

    def __repr__(self) -> str:
        left = ([gpu.slot for gpu in self.true.gpus], [nic.slot for nic in self.true.nics])
        faults = [path for path, value in leaves(self.true) if value in ("down", "unreported")]
        return f"Damaged(left={left}, faults={faults}, renumbered={self.true != self.told})"


def shape_of(wiring: Wiring) -> NodeShape:
    return NodeShape(id=ShapeId("healthy"), **dict(wiring))


def survivors(wiring: Wiring, gpus: set[int], nics: set[int]) -> Wiring:
    """What is left of a wiring; a port to a GPU that is gone is down and hides its far end."""
    gone = {f"gpu{slot}" for slot in gpus} | {f"nic{slot}" for slot in nics}
    return wiring.model_copy(
        update={
            "gpus": tuple(orphaned(gpu, gpus) for gpu in wiring.gpus if gpu.slot not in gpus),
            "nics": tuple(nic for nic in wiring.nics if nic.slot not in nics),
            "pcie_levels": tuple(p for p in wiring.pcie_levels if not {p.a, p.b} & gone),
            "p2p": tuple(p for p in wiring.p2p if not {p.a, p.b} & gpus),
        }
    )


def orphaned(gpu: GpuSlot, gone: set[int]) -> GpuSlot:
    def is_orphan(port: GpuPort) -> bool:
        return port.end.kind is EndKind.GPU and port.end.index in gone

    ports = (broken_port(p, "hidden") if is_orphan(p) else p for p in gpu.ports)
    return gpu.model_copy(update={"ports": tuple(ports)})


def broken_port(port: GpuPort, how: str) -> GpuPort:
    silent: dict[str, Any] = {"end": PortEnd(kind=EndKind.UNREPORTED), "bytes_per_s": None}
    changes: dict[str, dict[str, Any]] = {
        "down": {"state": LinkState.DOWN},
        "hidden": {"state": LinkState.DOWN, "version": None} | silent,
        "untold": {"state": LinkState.UNREPORTED},
        "slow": {"bytes_per_s": 1e9},
        "index hidden": {"state": LinkState.DOWN, "end": PortEnd(kind=port.end.kind)},
    }
    return port.model_copy(update=changes[how])


def renumbered_by_hand(wiring: Wiring) -> Wiring:
    """The wiring in the numbers of a driver that counts only what it sees."""
    gpu = {gpu.slot: i for i, gpu in enumerate(wiring.gpus)}
    nic = {nic.slot: i for i, nic in enumerate(wiring.nics)}
    name = {f"gpu{a}": f"gpu{b}" for a, b in gpu.items()} | {
        f"nic{a}": f"nic{b}" for a, b in nic.items()
    }

    def moved_port(port: GpuPort) -> GpuPort:
        if port.end.kind is not EndKind.GPU or port.end.index is None:
            return port
        return port.model_copy(update={"end": PortEnd(kind=EndKind.GPU, index=gpu[port.end.index])})

    return Wiring(
        **dict(wiring)
        | {
            "gpus": tuple(
                g.model_copy(
                    update={"slot": gpu[g.slot], "ports": tuple(moved_port(p) for p in g.ports)}
                )
                for g in wiring.gpus
            ),
            "nics": tuple(n.model_copy(update={"slot": nic[n.slot]}) for n in wiring.nics),
            "pcie_levels": tuple(
                p.model_copy(update={"a": name[p.a], "b": name[p.b]}) for p in wiring.pcie_levels
            ),
            "p2p": tuple(p.model_copy(update={"a": gpu[p.a], "b": gpu[p.b]}) for p in wiring.p2p),
        }
    )


def subsets(slots: Iterable[int], most: int) -> st.SearchStrategy[set[int]]:
    return st.sets(st.sampled_from(sorted(slots)), max_size=most)


@st.composite
def damaged(draw: st.DrawFn, wiring: Wiring) -> Damaged:
    slots = [gpu.slot for gpu in wiring.gpus]
    gone = draw(subsets(slots, (len(slots) - 1) // 2))
    left = survivors(wiring, gone, draw(subsets([n.slot for n in wiring.nics], len(wiring.nics))))
    if draw(st.booleans()):
        left = left.model_copy(update={"nvswitches": left.nvswitches[1:]})
    hows = st.sampled_from(["down", "hidden", "untold", "slow", "index hidden", "missing", "lost"])
    for slot in draw(subsets([gpu.slot for gpu in left.gpus], 3)):
        left = with_gpu(left, slot, broken_gpu(draw, left, slot, draw(hows)))
    if not gone and draw(st.booleans()):
        left = in_virtual_machine(left)
    left = Wiring(**dict(left))
    return Damaged(left, renumbered_by_hand(left) if draw(st.booleans()) else left)


def broken_gpu(draw: st.DrawFn, wiring: Wiring, slot: int, how: str) -> GpuSlot:
    gpu = next(gpu for gpu in wiring.gpus if gpu.slot == slot)
    if how == "lost":
        vendor = draw(st.sampled_from([GpuVendor.NVIDIA, GpuVendor.UNREPORTED]))
        return GpuSlot(slot=slot, pci_address=gpu.pci_address, vendor=vendor)
    hit = draw(subsets(range(len(gpu.ports)), 3)) if gpu.ports else set()
    if how == "missing":
        return gpu.model_copy(
            update={"ports": tuple(p for i, p in enumerate(gpu.ports) if i not in hit)}
        )
    ports = [
        broken_port(p, how) if i in hit and p.state is LinkState.UP else p
        for i, p in enumerate(gpu.ports)
    ]
    width = draw(st.sampled_from([gpu.pcie_width, 8, 1]))
    return gpu.model_copy(update={"ports": tuple(ports), "pcie_width": width})


def with_gpu(wiring: Wiring, slot: int, new: GpuSlot) -> Wiring:
    return wiring.model_copy(
        update={"gpus": tuple(new if gpu.slot == slot else gpu for gpu in wiring.gpus)}
    )


def in_virtual_machine(wiring: Wiring) -> Wiring:
    def moved(device: Any) -> Any:
        if device.pci_address is None:
            return device
        text = device.pci_address.replace("00000", "0000a", 1)
        return device.model_copy(update={"pci_address": PciAddress(text)})

    lists = ("bridges", "gpus", "nvswitches")
    return wiring.model_copy(
        update={name: tuple(map(moved, getattr(wiring, name))) for name in lists}
    )


@st.composite
def broken_fleets(draw: st.DrawFn) -> tuple[str, list[Damaged]]:
    name = draw(st.sampled_from(MODELS))
    return name, draw(st.lists(damaged(HEALTHY[name]), min_size=1, max_size=3))


@settings(deadline=None, max_examples=150)
@given(broken_fleets())
def test_shape_with_its_deviations_is_the_broken_wiring_again(
    case: tuple[str, list[Damaged]],
) -> None:
    name, broken = case
    shape = shape_of(HEALTHY[name])
    for node in broken:
        fit = fit_to_shape(shape, node.told)
        assert fit is not None
        assert wiring_of(shape, fit.deviations, fit.addresses) == node.true


@settings(deadline=None, max_examples=40)
@given(broken_fleets(), st.permutations(range(7)))
def test_broken_nodes_stay_of_the_healthy_shape_in_any_order(
    case: tuple[str, list[Damaged]], order: list[int]
) -> None:
    name, broken = case
    wirings = [HEALTHY[name]] * 4 + [b.told for b in broken]
    shapes = find_shapes(wirings)
    assert find_shapes([wirings[i] for i in order if i < len(wirings)]) == shapes
    assert [wiring_of(shape) for shape in shapes] == [HEALTHY[name]]


@settings(deadline=None, max_examples=30)
@given(broken_fleets())
def test_each_node_of_a_map_gets_its_own_wiring_and_snapshot_back(
    case: tuple[str, list[Damaged]],
) -> None:
    name, broken = case
    wirings = [HEALTHY[name], *(b.true for b in broken)]
    snapshots = [make_snapshot(f"node{i}", wiring) for i, wiring in enumerate(wirings)]
    fleet = make_fleet(*snapshots)
    assert len(fleet.shapes) == 1
    assert [wiring for _, wiring in node_wirings(fleet)] == wirings
    assert list(snapshots_of(fleet)) == snapshots


def test_healthy_node_has_no_deviation() -> None:
    for wiring in HEALTHY.values():
        fit = fit_to_shape(shape_of(wiring), wiring)
        assert fit is not None
        assert (fit.deviations, fit.addresses, dict(fit.gpu_slots)) == ((), (), {})


def test_renumbered_driver_is_understood_by_pci_address() -> None:
    wiring = make_wiring(gpus=4)
    left = renumbered_by_hand(survivors(wiring, {1}, set()))
    fit = fit_to_shape(shape_of(wiring), left)
    assert fit is not None
    assert dict(fit.gpu_slots) == {1: 2, 2: 3}
    assert fit.deviations == (Deviation(path="gpus[1]", expected="present"),)


def silent(slot: int) -> Wiring:
    """A healthy node, of one GPU of which the driver tells nothing but where it is."""
    healthy = with_pairs(make_wiring())
    gpus = tuple(silenced_gpu(gpu) if gpu.slot == slot else gpu for gpu in healthy.gpus)
    p2p = tuple(pair for pair in healthy.p2p if slot not in (pair.a, pair.b))
    return healthy.model_copy(update={"gpus": gpus, "p2p": p2p})


def silenced_gpu(gpu: GpuSlot) -> GpuSlot:
    told = {"slot", "vendor", "pci_address", "numa", "bridge", "pcie_generation", "pcie_width"}
    return GpuSlot(**{name: getattr(gpu, name) for name in told})


def test_a_silent_gpu_is_one_deviation_and_not_one_for_each_field() -> None:
    shapes = find_shapes([with_pairs(make_wiring()), silent(2)])
    assert len(shapes) == 1
    fit = fit_to_shapes(shapes, silent(2))
    assert fit is not None
    assert fit.deviations == (Deviation(path="gpus[2]", expected="told", observed="unreported"),)
    assert wiring_of(fit.shape, fit.deviations, fit.addresses) == silent(2)


def test_levels_unknown_of_a_silent_gpu_are_deviations_of_their_own() -> None:
    less = silent(2)
    levels = tuple(pair for pair in less.pcie_levels if pair.key != "gpu0-gpu2")
    less = less.model_copy(update={"pcie_levels": levels})
    shapes = find_shapes([with_pairs(make_wiring()), less])
    fit = fit_to_shapes(shapes, less)
    assert fit is not None
    assert [d.path for d in fit.deviations] == ["gpus[2]", "pcie_levels[gpu0-gpu2]"]
    assert wiring_of(fit.shape, fit.deviations, fit.addresses) == less


def test_a_silent_gpu_with_half_its_lanes_deviates_in_both() -> None:
    less = silent(1)
    gpus = tuple(g.model_copy(update={"pcie_width": 8}) if g.slot == 1 else g for g in less.gpus)
    less = less.model_copy(update={"gpus": gpus})
    shapes = find_shapes([with_pairs(make_wiring()), less])
    fit = fit_to_shapes(shapes, less)
    assert fit is not None
    assert [d.path for d in fit.deviations] == ["gpus[1]", "gpus[1].pcie_width"]
    assert wiring_of(fit.shape, fit.deviations) == less


def test_a_deviation_of_a_gpu_that_no_shape_has_is_refused() -> None:
    (shape,) = find_shapes([make_wiring()])
    with pytest.raises(SnapshotError, match=r"gpus\[9\]"):
        wiring_of(shape, [Deviation(path="gpus[9]", expected="told", observed="unreported")])


def test_port_down_says_what_was_expected() -> None:
    wiring = make_wiring(gpus=2)
    gpu = wiring.gpus[1].model_copy(
        update={"ports": (make_port(0), broken_port(make_port(1), "hidden"))}
    )
    fit = fit_to_shape(shape_of(wiring), with_gpu(wiring, 1, gpu))
    assert fit is not None
    assert [(d.path, d.expected, d.observed) for d in fit.deviations] == [
        ("gpus[1].ports[1].bytes_per_s", 25e9, "unreported"),
        ("gpus[1].ports[1].end.index", 0, "unreported"),
        ("gpus[1].ports[1].end.kind", "switch", "unreported"),
        ("gpus[1].ports[1].state", "up", "down"),
        ("gpus[1].ports[1].version", "4.0", "unreported"),
    ]


@pytest.mark.parametrize(
    ("gpus", "lost", "is_same_shape"), [(8, 3, True), (8, 4, False), (2, 1, False)]
)
def test_machine_that_lacks_half_its_gpus_is_another_machine(
    gpus: int, lost: int, is_same_shape: bool
) -> None:
    whole = make_wiring(gpus=gpus)
    left = survivors(whole, set(range(gpus - lost, gpus)), set())
    assert (len(find_shapes([whole, left])) == 1) is is_same_shape


def test_node_without_gpus_is_no_broken_gpu_node() -> None:
    assert len(find_shapes([make_wiring(gpus=8), make_wiring(gpus=0)])) == 2


def with_first_gpu(**special: Any) -> Wiring:
    wiring = make_wiring()
    return replaced(wiring, "gpus", (make_gpu(0, **special), *wiring.gpus[1:]))


ROCE_PORT = make_nic(1).ports[0].model_copy(update={"link_layer": LinkLayer.ROCE})
OTHERS: Mapping[str, Wiring] = {
    "product": with_first_gpu(product_name="NVIDIA H200"),
    "memory": with_first_gpu(memory_bytes=2**36),
    "numa": with_first_gpu(numa=None),
    "bridge": with_first_gpu(bridge=None),
    "module": with_first_gpu(module_id=3),
    "width not told": with_first_gpu(pcie_width=None),
    "far end of a port that is up": with_first_gpu(
        ports=(make_port(0), make_port(1, end=PortEnd(kind=EndKind.SWITCH, index=1)))
    ),
    "port counted": with_first_gpu(ports=(make_port(0), make_port(None))),
    "machine": make_wiring(machine="other"),
    "rail": make_wiring(nics=(make_nic(0), make_nic(1, ports=make_nic(0).ports))),
    "link layer": make_wiring(nics=(make_nic(0), make_nic(1, ports=(ROCE_PORT,)))),
    "numa nodes": make_wiring(numa_nodes=()),
    "tables of pairs": with_pairs(make_wiring()),
    "order of the list": make_wiring(make_wiring().gpus[::-1]),
    "lost place unknown": make_wiring(tuple(make_gpu(i, pci_address=None) for i in range(3))),
    "two at one address": make_wiring(
        tuple(make_gpu(i, pci_address=address(0x10)) for i in range(3))
    ),
}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_wirings_that_differ_in_what_no_fault_changes_are_two_shapes(name: str) -> None:
    wirings = [make_wiring(), OTHERS[name]]
    shapes = find_shapes(wirings)
    assert len(shapes) == 2
    assert shapes == find_shapes(wirings[::-1])
    assert {wiring_digest(shape) for shape in shapes} == {wiring_digest(w) for w in wirings}
    for wiring in wirings:
        fit = fit_to_shapes(shapes, wiring)
        assert fit is not None
        assert wiring_of(fit.shape, fit.deviations, fit.addresses) == wiring


@pytest.mark.parametrize(
    "more", [make_wiring(gpus=5), make_wiring(nics=3), with_first_gpu(ports=3)], ids=["g", "n", "p"]
)
def test_wiring_that_has_what_a_shape_lacks_is_not_of_it(more: Wiring) -> None:
    assert fit_to_shape(shape_of(make_wiring()), more) is None
    assert [wiring_of(shape) for shape in find_shapes([make_wiring(), more])] == [more]


def test_addresses_alone_make_no_other_shape() -> None:
    moved = in_virtual_machine(make_wiring())
    assert wiring_digest(moved) == wiring_digest(make_wiring())
    (shape,) = find_shapes([moved, make_wiring(), make_wiring()])
    fit = fit_to_shape(shape, moved)
    assert fit is not None
    assert wiring_of(shape, fit.deviations, fit.addresses) == moved


def test_shape_has_the_addresses_most_nodes_have() -> None:
    odd = replaced(make_wiring(), "gpus", [make_gpu(i, pci_address=address(i)) for i in range(4)])
    left = renumbered_by_hand(survivors(make_wiring(), {0}, set()))
    (shape,) = find_shapes([odd, make_wiring(), make_wiring(), left])
    assert [gpu.pci_address for gpu in shape.gpus] == [address(0x10 + i) for i in range(4)]


def test_wirings_that_live_only_for_a_moment_are_told_apart() -> None:
    def passing() -> Iterator[Wiring]:
        for i in range(60):
            yield make_wiring(machine=f"kind{i // 3}")

    assert len(find_shapes(passing())) == 20


def test_no_wirings_have_no_shapes() -> None:
    assert find_shapes([]) == ()
    assert fit_to_shapes([], make_wiring()) is None


def test_fewest_deviations_win() -> None:
    weak = replaced(make_wiring(), "gpus", [make_gpu(i, pcie_width=8) for i in range(4)])
    shapes = (shape_of(make_wiring()), NodeShape(id=ShapeId("weak"), **dict(weak)))
    fit = fit_to_shapes(shapes, replaced(weak, "gpus", [make_gpu(0), *weak.gpus[1:]]))
    assert fit is not None
    assert (fit.shape.id, len(fit.deviations)) == ("weak", 1)


def test_peer_access_that_is_cut_is_a_deviation() -> None:
    wiring = with_pairs(make_wiring(gpus=2))
    cut = wiring.p2p[0].model_copy(update={"read": P2pState.TOPOLOGY})
    fit = fit_to_shape(shape_of(wiring), replaced(wiring, "p2p", [cut]))
    assert fit is not None
    assert [(d.path, d.observed) for d in fit.deviations] == [
        ("p2p[0-1].read", "topology_not_supported")
    ]


@pytest.mark.parametrize(
    ("path", "observed"),
    [
        ("gpus[0].colour", "red"),
        ("gpus[9]", None),
        ("gpus[9].pcie_width", 8),
        ("gpus[0].pcie_width", "wide"),
        ("gpus[0].pcie_width", 0),
        ("gpus[0].pcie_width", None),
        ("gpus[0].product_name", None),
        ("gpus[0]", "present"),
        ("gpus", "none"),
        ("gpus[0].ports[0].state", "sideways"),
        ("gpus[0].c2c.count", 1),
        ("?", 1),
    ],
)
def test_deviation_that_a_shape_cannot_have_is_refused(
    path: str, observed: str | int | None
) -> None:
    with pytest.raises(SnapshotError) as caught:
        wiring_of(shape_of(make_wiring()), [Deviation(path=path, observed=observed)])
    assert path in str(caught.value)
    assert caught.value.remedy


def test_gpu_cannot_be_gone_while_its_peers_point_at_it() -> None:
    shape = shape_of(HEALTHY["dgx1-v100"])
    with pytest.raises(SnapshotError, match="no gpu 3 here"):
        wiring_of(shape, [Deviation(path="gpus[3]", expected="present")])
