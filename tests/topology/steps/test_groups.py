"""Groups: who communicates with whom, and which groups are alike."""

import pytest

from fleet import Cable, FleetMap, fleet_from_spec
from tests.topology.latency.factories import fabric_of
from tests.topology.steps.factories import h100
from topology.collective.placement import Placement, pack
from topology.fabric.from_fleet import Fabric
from topology.fabric.routes import Endpoint
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.steps.groups import Groups, groups_on, members_of
from topology.words import Collective, NoiseName

TWO_LEAVES = "dgx-h100 node:6 leaf:16 spine:2"
"""Three nodes on the first leaves, three on the second; a leaf for each rail."""


def groups(fabric: Fabric, gpus: int, size: int, stride: int) -> Groups:
    return groups_on(fabric, pack(fabric, gpus), "g", size=size, stride=stride)


def test_every_rank_is_in_one_group() -> None:
    for size, stride in ((1, 1), (2, 1), (2, 8), (3, 2), (24, 1)):
        members = members_of(48, size, stride)
        assert sorted(members.reshape(-1).tolist()) == list(range(48))
        assert members.shape[1] == size


def test_tensor_groups_of_like_nodes_are_simulated_once() -> None:
    tensor = groups(h100(4), 32, 8, 1)
    assert (tensor.count, tensor.counts()) == (4, [4])
    assert tensor.group_of.tolist() == [rank // 8 for rank in range(32)]


def test_data_groups_differ_by_the_slot_that_they_stand_in() -> None:
    data = groups(h100(4), 32, 4, 8)
    assert (data.count, data.counts()) == (8, [1] * 8)
    assert data.members[3].tolist() == [3, 11, 19, 27]


def two_leaves(fabric: Fabric) -> tuple[list[Endpoint], list[Endpoint]]:
    """First GPUs of the nodes on the first node's leaves, and of the others."""
    ends = [end for end in fabric.endpoints if end.slot == 0]
    here = fabric.leaves_of(ends[0].host)
    near = [end for end in ends if fabric.leaves_of(end.host) == here]
    return near, [end for end in ends if end not in near]


def test_groups_are_apart_by_who_of_them_shares_a_leaf() -> None:
    fabric = fabric_of(TWO_LEAVES)
    (a, b, c, *_), (x, y, *_) = two_leaves(fabric)
    placement = Placement((a, b, c, a, b, x, a, x, y, b, c, y))
    triples = groups_on(fabric, placement, "triples", size=3, stride=1)
    assert triples.shape_of.tolist() == [0, 1, 2, 1]


def test_groups_are_apart_by_what_their_leaves_can_send() -> None:
    """With a cable up from one leaf gone it matters who of a pair is on that leaf."""
    fleet = fleet_from_spec(f"model:{TWO_LEAVES}")
    (a, *_), (x, *_) = two_leaves(Fabric(fleet))
    placement = Placement((a, x, x, a))
    kept = [cable for cable in fleet.cables if cable not in trunks_of(fleet, "leaf01-rail0")[:1]]
    counts = [
        groups_on(Fabric(map_), placement, "pairs", size=2, stride=1).counts()
        for map_ in (fleet, fleet.model_copy(update={"cables": tuple(kept)}))
    ]
    assert counts == [[2], [1, 1]]


def trunks_of(fleet: FleetMap, leaf: str) -> list[Cable]:
    """Cables from a leaf to other switches."""
    trunks = [cable for cable in fleet.cables if cable.a.nic is None and cable.b.nic is None]
    return [cable for cable in trunks if leaf in (cable.a.device, cable.b.device)]


def test_two_gpus_of_a_pcie_node_are_apart_by_what_joins_them() -> None:
    fabric = fabric_of("pcie-l40s node:1")
    pairs = groups(fabric, len(fabric.endpoints), 2, 1)
    assert sum(pairs.counts()) == len(fabric.endpoints) // 2
    assert len(pairs.counts()) == pairs.count, "each pair stands in slots of its own"


@pytest.mark.parametrize("spec", ["dgx-h100 node:32 leaf:8 spine:4", "gb200-nvl72 rack:2"])
@pytest.mark.parametrize(("size", "stride"), [(8, 1), (4, 8)])
def test_groups_of_one_shape_take_the_same_time(spec: str, size: int, stride: int) -> None:
    fabric = fabric_of(spec)
    placement = pack(fabric, 128)
    found = groups_on(fabric, placement, "g", size=size, stride=stride)
    scenario = Scenario(Collective.ALL_REDUCE, 2**20, noise=NoiseName.NONE)
    times: dict[int, float] = {}
    for members, shape in zip(found.members, found.shape_of.tolist(), strict=True):
        there = Placement(tuple(placement.endpoints[rank] for rank in members))
        time_s = simulate(fabric, there, scenario).noiseless_s
        assert times.setdefault(shape, time_s) == time_s
