"""Which ways a simulation may take: cuts that keep time monotone, LL128 as NCCL enables it."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import fleet_from_spec
from fleet.merge import merge_fleets
from tests.topology.latency.factories import fabric_of
from topology.collective.placement import pack, spread
from topology.errors import ScheduleError
from topology.fabric.from_fleet import Fabric
from topology.latency.choice import KNOWN_TO_MODEL
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.latency.summary import LatencySummary
from topology.words import AlgorithmName, Collective, NoiseName, Protocol, StackName

MIB = 2**20
CALM = Scenario(Collective.ALL_REDUCE, 8, noise=NoiseName.NONE)


def run(scenario: Scenario, gpus: int = 16, fabric: Fabric | None = None) -> LatencySummary:
    fabric = fabric or fabric_of("dgx-h100 node:2")
    return simulate(fabric, pack(fabric, gpus), scenario)


# More bytes are never faster, whatever the cut.


@settings(max_examples=25, deadline=None)
@given(
    exponent=st.integers(10, 31),
    offset=st.integers(-2, 2),
    more=st.integers(1, 2**20),
    spec=st.sampled_from(["dgx-h100 node:2", "gb200-nvl72 rack:1", "dgx1-v100 node:2"]),
    algorithm=st.sampled_from(["auto", "tree", "double_binary_tree", "nvls", "hierarchical"]),
    stack=st.sampled_from([StackName.NCCL, StackName.WIRE]),
)
def test_a_byte_more_is_never_faster(
    exponent: int, offset: int, more: int, spec: str, algorithm: str, stack: StackName
) -> None:
    fabric = fabric_of(spec)
    name = AlgorithmName(algorithm)
    if name is AlgorithmName.NVLS and "rack" not in spec:
        name = AlgorithmName.AUTO
    if name is AlgorithmName.HIERARCHICAL and "rack" in spec:
        name = AlgorithmName.AUTO
    scenario = replace(CALM, algorithm=name, stack=stack)
    if stack is StackName.NCCL and name in KNOWN_TO_MODEL:
        # NCCL may choose worse for a byte more; on one way more bytes still take longer.
        ring = AlgorithmName.RING if name is AlgorithmName.AUTO else name
        scenario = replace(scenario, algorithm=ring, protocol=Protocol.SIMPLE)
    sizes = (2**exponent + offset, 2**exponent + offset + more)
    less_s, more_s = (
        simulate(fabric, pack(fabric, 16), replace(scenario, size_bytes=n)).noiseless_s
        for n in sizes
    )
    assert more_s >= less_s * (1 - 1e-3)


def test_a_byte_over_a_mebibyte_is_not_faster_than_a_mebibyte() -> None:
    for name in ("tree", "double_binary_tree"):
        scenario = replace(CALM, algorithm=AlgorithmName(name))
        one, over = (run(replace(scenario, size_bytes=MIB + k)).noiseless_s for k in (0, 1))
        assert over >= one * (1 - 1e-9)


# LL128 as NCCL enables it.


def test_ll128_is_left_out_where_a_node_is_joined_by_pcie() -> None:
    l40s = fabric_of("pcie-l40s node:2")
    for gpus in (8, 16):
        for size_bytes in (2**16, 2**20, 2**26):
            auto = run(replace(CALM, size_bytes=size_bytes), gpus=gpus, fabric=l40s)
            assert not any("ll128" in way.name for way in auto.considered)
    with pytest.raises(ScheduleError, match=r"ll128: .* by PCIe; use --protocol ll or simple"):
        run(replace(CALM, protocol=Protocol.LL128), gpus=8, fabric=l40s)


@pytest.mark.parametrize("spec", ["pcie-l40s node:8", "dgx-h100 node:8", "dgx1-v100 node:8"])
def test_ll128_runs_between_nodes_of_one_gpu_each_and_over_nvlink(spec: str) -> None:
    fabric = fabric_of(spec)
    scenario = replace(CALM, protocol=Protocol.LL128)
    assert simulate(fabric, spread(fabric, 8), scenario).protocol == "ll128"
    if "l40s" not in spec:
        assert run(scenario, gpus=8, fabric=fabric).protocol == "ll128"


@pytest.mark.parametrize(
    ("specs", "runs"),
    [
        (("dgx-a100 node:1", "dgx-h100 node:1"), False),
        (("dgx1-v100 node:1", "dgx-a100 node:1"), False),
        (("dgx-h100 node:1", "dgx-b200 node:1"), True),
    ],
)
def test_ll128_runs_among_generations_only_from_hopper_on(
    specs: tuple[str, str], runs: bool
) -> None:
    fabric = Fabric(merge_fleets([fleet_from_spec(f"model:{spec}") for spec in specs]))
    scenario = replace(CALM, protocol=Protocol.LL128)
    if runs:
        assert run(scenario, gpus=16, fabric=fabric).protocol == "ll128"
        return
    with pytest.raises(ScheduleError, match="NCCL keeps it to GPUs of one generation, Volta or"):
        run(scenario, gpus=16, fabric=fabric)
