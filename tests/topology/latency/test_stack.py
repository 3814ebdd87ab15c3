"""Stacks: per hop the larger of wire and constant, a launch by style, nothing on the bare wire."""

import tomllib
from importlib.resources import files
from typing import Any

import pytest
from pydantic import ValidationError

from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack
from topology.fabric.routes import LinkKind, Route
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.stack import Stack, StackFigures, load_stack_figures
from topology.words import AlgorithmName, Collective, Launch, NoiseName, Protocol, StackName

US = 1e-6

# NCCL 2.30.7's tables (reference section 1.2): (tree, ring) in microseconds.
BASE_US = {Protocol.LL: (6.8, 6.6), Protocol.LL128: (14.0, 14.0), Protocol.SIMPLE: (8.4, 8.4)}
HOP_US = {
    (Protocol.LL, LinkKind.NVLINK): (0.6, 0.6),
    (Protocol.LL128, LinkKind.NVLINK): (1.25, 1.9),
    (Protocol.SIMPLE, LinkKind.NVLINK): (4.0, 3.4),
    (Protocol.LL, LinkKind.PCI): (1.0, 1.0),
    (Protocol.LL128, LinkKind.PCI): (1.9, 2.5),
    (Protocol.SIMPLE, LinkKind.PCI): (4.0, 5.7),
    (Protocol.LL, LinkKind.NET): (5.0, 2.7),
    (Protocol.LL128, LinkKind.NET): (8.5, 4.0),
    (Protocol.SIMPLE, LinkKind.NET): (14.0, 14.0),
}
LAUNCH_S = 2.67 * US


def shipped() -> dict[str, Any]:
    return tomllib.loads((files("topology.latency") / "stack_figures.toml").read_text())


def nccl(protocol: Protocol, launch: Launch = Launch.PROCESS) -> Stack:
    return Stack(StackName.NCCL, protocol, launch, load_stack_figures())


def route_of(kind: LinkKind) -> Route:
    spec, far = {
        LinkKind.NVLINK: ("dgx-h100 node:2", 1),
        LinkKind.PCI: ("pcie-l40s node:2", 7),
        LinkKind.NET: ("dgx-h100 node:2", 8),
    }[kind]
    fabric = fabric_of(spec)
    route = fabric.reachable_route(fabric.endpoints[0], fabric.endpoints[far])
    assert route.link_kind is kind
    return route


@pytest.mark.parametrize("protocol", Protocol)
@pytest.mark.parametrize("kind", LinkKind)
def test_a_hop_takes_the_larger_of_wire_and_constant(protocol: Protocol, kind: LinkKind) -> None:
    route = route_of(kind)
    tree_us, ring_us = HOP_US[protocol, kind]
    for algorithm, constant_us in (
        ("ring", ring_us),
        ("pairwise", ring_us),
        ("tree", tree_us),
        ("double_binary_tree", tree_us),
        ("recursive_doubling", tree_us),
    ):
        hop_s = route.alpha_s + nccl(protocol).software_s(route, algorithm)
        assert hop_s == pytest.approx(max(route.alpha_s, constant_us * US))


@pytest.mark.parametrize("protocol", Protocol)
def test_base_and_one_launch_are_nccls_base(protocol: Protocol) -> None:
    tree_us, ring_us = BASE_US[protocol]
    stack = nccl(protocol)
    assert stack.launch_s(1) + stack.base_s("ring") == pytest.approx(ring_us * US)
    assert stack.launch_s(8) + stack.base_s("tree") == pytest.approx(tree_us * US)


def test_an_in_switch_operation_takes_25_us_as_nccl_says() -> None:
    fabric = fabric_of("dgx-h100 node:1")
    leg = fabric.leg(fabric.endpoints[0])
    stack = nccl(Protocol.SIMPLE)
    hop_s = leg.alpha_s + stack.software_s(leg, "nvls")
    assert stack.launch_s(8) + stack.base_s("nvls") + 2 * hop_s == pytest.approx(25 * US)


def test_only_simple_reduces_in_the_switch() -> None:
    able = [protocol for protocol in Protocol if nccl(protocol).can_reduce_in_switch()]
    assert able == [Protocol.SIMPLE]


def test_launch_by_one_thread_costs_one_more_for_each_further_gpu() -> None:
    by_thread = nccl(Protocol.LL, Launch.THREAD)
    assert by_thread.launch_s(1) == pytest.approx(LAUNCH_S)
    assert by_thread.launch_s(8) == pytest.approx(8 * LAUNCH_S)
    assert nccl(Protocol.LL, Launch.PROCESS).launch_s(8) == pytest.approx(LAUNCH_S)
    assert nccl(Protocol.LL, Launch.GRAPH).launch_s(8) == pytest.approx(1.01 * US)


def test_the_bare_wire_adds_nothing() -> None:
    wire = Stack(StackName.WIRE, None, Launch.THREAD, load_stack_figures())
    assert (
        wire.launch_s(8) == wire.base_s("ring") == wire.software_s(route_of(LinkKind.NET), "") == 0
    )
    assert wire.payload_ratio == 1
    assert wire.can_reduce_in_switch()


@pytest.mark.parametrize(
    ("protocol", "ratio"), [(Protocol.LL, 0.5), (Protocol.LL128, 0.92), (Protocol.SIMPLE, 1.0)]
)
def test_flags_of_a_protocol_take_their_share_of_the_wire(protocol: Protocol, ratio: float) -> None:
    """At 1 GiB the time is nearly all bandwidth."""
    fabric = fabric_of("dgx-h100 node:1")
    times = []
    for stack, chosen in ((StackName.WIRE, None), (StackName.NCCL, protocol)):
        scenario = Scenario(
            Collective.ALL_REDUCE,
            2**30,
            algorithm=AlgorithmName.TREE,
            protocol=chosen,
            stack=stack,
            noise=NoiseName.NONE,
        )
        times.append(simulate(fabric, pack(fabric, 8), scenario).breakdown["p50"].bandwidth_s)
    assert times[0] / times[1] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("algorithm", "protocol", "expected_us"),
    [
        (AlgorithmName.RING, Protocol.LL, 6.6 + 14 * 0.6),
        (AlgorithmName.RING, Protocol.LL128, 14.0 + 14 * 1.9),
        (AlgorithmName.RING, Protocol.SIMPLE, 8.4 + 14 * 3.4),
        (AlgorithmName.DOUBLE_BINARY_TREE, Protocol.LL, 6.8 + 14 * 0.6),
        (AlgorithmName.DOUBLE_BINARY_TREE, Protocol.SIMPLE, 8.4 + 14 * 4.0),
        (AlgorithmName.NVLS, Protocol.SIMPLE, 25.0),
    ],
)
def test_small_all_reduce_on_eight_h100_is_nccls_sum(
    algorithm: AlgorithmName, protocol: Protocol, expected_us: float
) -> None:
    """Anchor 8.4: what NCCL itself predicts."""
    fabric = fabric_of("dgx-h100 node:1")
    scenario = Scenario(
        Collective.ALL_REDUCE,
        1,
        algorithm=algorithm,
        protocol=protocol,
        stack=StackName.NCCL_TUNER,
        noise=NoiseName.NONE,
    )
    calm = simulate(fabric, pack(fabric, 8), scenario)
    assert calm.noiseless_s == pytest.approx(expected_us * US, rel=1e-3)


@pytest.mark.parametrize(
    ("nodes", "levels"), [(2, 1), (8, 3)], ids=["16 GPUs: 25.2 us", "64 GPUs: 45.2 us"]
)
def test_tree_over_nodes_is_nccls_sum(nodes: int, levels: int) -> None:
    """Anchor 8.4: base + 2 (7 intra + log2(nodes) inter)."""
    fabric = fabric_of("dgx-h100 node:8")
    scenario = Scenario(
        Collective.ALL_REDUCE,
        1,
        algorithm=AlgorithmName.DOUBLE_BINARY_TREE,
        protocol=Protocol.LL,
        stack=StackName.NCCL_TUNER,
        noise=NoiseName.NONE,
    )
    calm = simulate(fabric, pack(fabric, 8 * nodes), scenario)
    expected_us = 6.8 + 2 * (7 * 0.6 + levels * 5.0)
    assert calm.noiseless_s == pytest.approx(expected_us * US, rel=1e-3)


def test_figures_name_no_source_that_is_not_listed() -> None:
    document = shipped()
    document["protocol"]["ll"]["sources"] = ["S99"]
    with pytest.raises(ValidationError, match="source S99 is not listed"):
        StackFigures.model_validate(document)


@pytest.mark.parametrize("wrong", [-1e-6, float("nan"), float("inf"), "fast"])
def test_figures_that_are_no_times_are_refused(wrong: object) -> None:
    document = shipped()
    document["launch"]["graph"]["once_s"] = wrong
    with pytest.raises(ValidationError, match=r"launch\.graph\.once_s"):
        StackFigures.model_validate(document)


def test_misspelt_figure_is_refused() -> None:
    document = shipped()
    document["pipeline"]["piece_byte"] = 1
    with pytest.raises(ValidationError, match=r"pipeline\.piece_byte"):
        StackFigures.model_validate(document)


@pytest.mark.parametrize(
    ("size_bytes", "pieces"), [(1, 1), (2**19, 1), (2**19 + 1, 2), (2**24, 32), (2**40, 64)]
)
def test_pieces_of_half_a_mebibyte_and_never_more_than_64(size_bytes: int, pieces: int) -> None:
    assert load_stack_figures().pieces(size_bytes) == pieces
