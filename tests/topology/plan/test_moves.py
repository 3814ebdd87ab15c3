"""Moves: where each puts a workload on what is free, or why it cannot."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.plan.factories import fabric_of
from topology.collective.placement import Placement, free_endpoints
from topology.fabric.from_fleet import Fabric
from topology.plan.moves import (
    MOVES,
    Reason,
    Refusal,
    balanced,
    fewest_nodes_of_fleet,
    one_domain,
    same_leaf,
    spread_out,
)


def counts(placement: Placement | Refusal) -> dict[str, int]:
    """Ranks by host."""
    assert isinstance(placement, Placement), placement
    return dict(Counter(endpoint.host for endpoint in placement.endpoints))


def placed(placement: Placement | Refusal) -> Placement:
    assert isinstance(placement, Placement), placement
    return placement


def refusal(placement: Placement | Refusal) -> Refusal:
    assert isinstance(placement, Refusal), placement
    return placement


def test_one_domain_takes_the_smallest_that_has_room() -> None:
    fabric = fabric_of("dgx-h100 node:3 busy:0,3,1")
    assert counts(one_domain(fabric, 5)) == {"h100-002": 5}
    assert counts(one_domain(fabric, 6)) == {"h100-003": 6}
    assert counts(one_domain(fabric, 8)) == {"h100-001": 8}


def test_one_domain_without_room_says_how_much_there_is() -> None:
    told = refusal(one_domain(fabric_of("dgx-h100 node:3 busy:2,3,4"), 7))
    assert told.reason is Reason.NO_DOMAIN_HAS_ROOM
    assert told.text == "the largest NVLink domain has 6 free, 7 asked"


def test_one_domain_of_a_rack_spans_nodes() -> None:
    placement = one_domain(fabric_of("gb200-nvl72 rack:2"), 64)
    assert set(counts(placement).values()) == {4}
    assert len(counts(placement)) == 16


def test_gpus_without_nvlink_are_domains_of_one() -> None:
    fabric = fabric_of("pcie-l40s node:2")
    assert counts(one_domain(fabric, 1)) == {"l40s-001": 1}
    told = refusal(one_domain(fabric, 2))
    assert told.text == "the largest NVLink domain has 1 free, 2 asked"


def test_fewest_nodes_takes_the_fullest_first_and_the_last_best_fitting() -> None:
    fabric = fabric_of("dgx-h100 node:4 busy:0,6,2,5")
    assert counts(fewest_nodes_of_fleet(fabric, 14)) == {"h100-001": 8, "h100-003": 6}
    assert counts(fewest_nodes_of_fleet(fabric, 9)) == {"h100-001": 8, "h100-003": 1}


def test_same_leaf_stays_below_one_set_of_leaves() -> None:
    """64 nodes: two groups of 32, each on leaves of its own."""
    fabric = fabric_of("dgx-h100 node:64")
    first = {f"h100-{i:03d}" for i in range(1, 33)}
    assert set(counts(same_leaf(fabric, 256))) == first
    told = refusal(same_leaf(fabric, 257))
    assert told.reason is Reason.NO_LEAF_HAS_ROOM
    assert "has 256 free, 257 asked" in told.text


def test_same_leaf_takes_the_fuller_half_when_the_other_is_held() -> None:
    busy = ",".join(["8"] * 31 + ["0"] * 33)
    fabric = fabric_of(f"dgx-h100 node:64 busy:{busy}")
    hosts = set(counts(same_leaf(fabric, 16)))
    assert hosts <= {f"h100-{i:03d}" for i in range(33, 65)}
    assert len(hosts) == 2
    assert counts(same_leaf(fabric, 8)) == {"h100-032": 8}, "the smallest group that has room"


def test_same_leaf_without_cables_is_refused() -> None:
    fleet = fabric_of("dgx-h100 node:2").fleet.model_copy(update={"cables": ()})
    told = refusal(same_leaf(Fabric(fleet), 8))
    assert told.text == "the map tells of no leaf with anything free"


def test_spread_goes_evenly_over_all_nodes_with_something_free() -> None:
    fabric = fabric_of("dgx-h100 node:4 busy:0,8,6,0")
    assert counts(spread_out(fabric, 8)) == {"h100-001": 3, "h100-003": 2, "h100-004": 3}


def test_cpu_ranks_are_placed_like_gpus() -> None:
    """88 nodes on two leaves."""
    fabric = fabric_of("beowulf-2006 node:88")
    assert len(counts(fewest_nodes_of_fleet(fabric, 60))) == 60
    assert len(counts(same_leaf(fabric, 44))) == 44
    assert refusal(same_leaf(fabric, 45)).reason is Reason.NO_LEAF_HAS_ROOM


SPECS = (
    "dgx-h100 node:5 busy:0,3,8,7,1",
    "gb200-nvl72 rack:2 busy:0,1,4",
    "pcie-l40s node:3 busy:2",
    "dgx1-v100 node:4 busy:5,0",
)


@settings(max_examples=60, deadline=None)
@given(spec=st.sampled_from(SPECS), data=st.data())
def test_a_move_uses_each_free_place_once_and_no_held_one(spec: str, data: st.DataObject) -> None:
    fabric = fabric_of(spec)
    free = free_endpoints(fabric)
    gpus = data.draw(st.integers(1, len(free)))
    by_name = {}
    for move in MOVES:
        placement = move.place(fabric, gpus)
        if isinstance(placement, Placement):
            assert placement.ranks == gpus == len(set(placement.endpoints))
            assert set(placement.endpoints) <= set(free)
            by_name[move.name] = placement
    widths = {name: len(placement.hosts) for name, placement in by_name.items()}
    assert widths["fewest_nodes"] <= widths["spread"]
    assert "one_domain" not in widths or widths["one_domain"] <= widths["spread"]
    room = Counter(fabric.domain_of(endpoint).name for endpoint in free)
    assert ("one_domain" in by_name) == (max(room.values()) >= gpus)


def test_moves_go_from_scaled_in_to_scaled_out_and_have_names_of_their_own() -> None:
    names = [move.name for move in MOVES]
    assert names == ["one_domain", "fewest_nodes", "balanced", "same_leaf", "spread"]
    assert len({move.title for move in MOVES}) == len(MOVES)


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.name)
def test_move_leaves_no_place_for_more_than_is_free(move: object) -> None:
    fabric = fabric_of("dgx-h100 node:2 busy:8,4")
    for gpus in range(1, 5):
        place = move.place  # type: ignore[attr-defined]
        assert isinstance(place(fabric, gpus), Placement)


def test_balanced_takes_even_shares_of_the_fewest_domains() -> None:
    racks = fabric_of("gb200-nvl72 rack:3")
    shares = Counter(racks.domain_of(e).name for e in placed(balanced(racks, 76)).endpoints)
    assert sorted(shares.values()) == [38, 38]
    assert counts(balanced(fabric_of("dgx-h100 node:4"), 9)) == {"h100-001": 5, "h100-002": 4}
    assert counts(balanced(fabric_of("dgx-h100 node:4 busy:0,5,4,6"), 12)) == {
        "h100-001": 8,
        "h100-003": 4,
    }
    assert sorted(counts(balanced(fabric_of("pcie-l40s node:3"), 9)).values()) == [4, 5]


@settings(max_examples=60)
@given(
    busy=st.lists(st.integers(0, 8), min_size=1, max_size=5),
    nodes=st.integers(1, 6),
    data=st.data(),
)
def test_balanced_is_as_narrow_as_can_be_and_no_share_could_be_evener(
    busy: list[int], nodes: int, data: st.DataObject
) -> None:
    fabric = fabric_of(f"dgx-h100 node:{nodes} busy:{','.join(map(str, busy))}")
    free = Counter(endpoint.host for endpoint in free_endpoints(fabric))
    gpus = data.draw(st.integers(1, max(1, free.total())))
    if gpus > free.total():
        return
    shares = counts(balanced(fabric, gpus))
    assert sum(shares.values()) == gpus
    room = sorted(free.values(), reverse=True)
    assert len(shares) == next(n for n in range(1, nodes + 1) if sum(room[:n]) >= gpus)
    for host, share in shares.items():
        assert share >= max(shares.values()) - 1 or share == free[host]


def test_spread_takes_racks_by_turns() -> None:
    racks = fabric_of("gb200-nvl72 rack:2")
    shares = Counter(racks.domain_of(e).name for e in placed(spread_out(racks, 20)).endpoints)
    assert sorted(shares.values()) == [10, 10]
