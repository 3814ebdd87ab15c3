from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.fields import HostName
from fleet.model import FleetMap
from tests.topology.collective.layouts import fabric_of
from topology.collective.placement import (
    Placement,
    domains_with_room,
    fewest_nodes,
    free_endpoints,
    largest_free_domain,
    pack,
    placement_from_text,
    spread,
)
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.fabric.routes import Endpoint

H100 = "model:dgx-h100 node:8"


def names(placement: Placement) -> list[str]:
    return [str(endpoint) for endpoint in placement.endpoints]


def free_pack(spec: str, ranks: int) -> Placement:
    fabric = fabric_of(spec)
    return pack(fabric, ranks, among=free_endpoints(fabric))


def by_host(placement: Placement) -> dict[str, int]:
    hosts = [endpoint.host for endpoint in placement.endpoints]
    return {host: hosts.count(host) for host in dict.fromkeys(hosts)}


def domains_of(fabric: Fabric, placement: Placement) -> set[str]:
    return {fabric.domain_of(endpoint).name for endpoint in placement.endpoints}


def test_pack_fills_nodes_one_after_the_other() -> None:
    assert names(pack(fabric_of(H100), 12)) == [
        *(f"h100-001:{slot}" for slot in range(8)),
        *(f"h100-002:{slot}" for slot in range(4)),
    ]


def test_pack_takes_the_smallest_domain_that_has_room() -> None:
    placement = free_pack("model:dgx-h100 node:3 busy:0,5,4", 3)
    assert names(placement) == ["h100-002:5", "h100-002:6", "h100-002:7"]


def test_pack_takes_the_fullest_domains_where_none_has_room() -> None:
    """Free are 3, 8, 5 and 8: twelve ranks need two nodes, one of them whole."""
    placement = free_pack("model:dgx-h100 node:4 busy:5,0,3,0", 12)
    assert sorted(by_host(placement).values()) == [4, 8]


def test_of_the_fewest_nodes_the_last_is_the_tightest() -> None:
    free = {"a": 8, "b": 8, "c": 3}
    ends = [Endpoint(HostName(host), slot) for host, count in free.items() for slot in range(count)]
    assert by_host(Placement(tuple(fewest_nodes(ends, 11)))) == {"a": 8, "c": 3}
    assert by_host(Placement(tuple(fewest_nodes(ends, 2)))) == {"c": 2}


def test_pack_stays_in_a_rack_though_it_takes_many_nodes() -> None:
    fabric = fabric_of("model:gb200-nvl72 rack:2")
    placement = pack(fabric, 70)
    assert len(domains_of(fabric, placement)) == 1
    assert len(placement.hosts) == 18


def test_pack_on_a_busy_rack_takes_as_few_trays_as_can_be() -> None:
    placement = free_pack("model:gb200-nvl72 node:6 busy:3,0,2,4", 8)
    assert sorted(by_host(placement).values()) == [4, 4]


def test_pack_without_nvlink_takes_as_few_nodes_as_can_be() -> None:
    assert by_host(free_pack("model:pcie-l40s node:3 busy:7,0,3", 8)) == {"l40s-002": 8}
    assert by_host(free_pack("model:pcie-l40s node:3 busy:7,0,3", 12)) == {
        "l40s-002": 8,
        "l40s-003": 4,
    }


def test_spread_takes_every_node_in_turn() -> None:
    fabric = fabric_of(H100)
    assert names(spread(fabric, 4)) == [f"h100-00{i}:0" for i in range(1, 5)]
    assert by_host(spread(fabric, 20)) == {f"h100-00{i}": 3 if i <= 4 else 2 for i in range(1, 9)}


def test_spread_over_busy_nodes_takes_what_is_free() -> None:
    fabric = fabric_of("model:dgx-h100 node:3 busy:8,6,0")
    placement = spread(fabric, 6, among=free_endpoints(fabric))
    assert by_host(placement) == {"h100-002": 2, "h100-003": 4}


BUSY = "model:dgx-h100 node:4 busy:3,8,0,6"


@settings(max_examples=60)
@given(
    spec=st.sampled_from(
        [BUSY, "model:pcie-l40s node:3 busy:1,7", "model:gb200-nvl72 node:20 busy:2,0,1"]
    ),
    ranks=st.integers(min_value=1, max_value=40),
)
def test_placements_hold_each_free_endpoint_once_in_map_order(spec: str, ranks: int) -> None:
    fabric = fabric_of(spec)
    free = free_endpoints(fabric)
    ranks = min(ranks, len(free))
    for place in (pack, spread):
        placement = place(fabric, ranks, among=free)
        assert len(set(placement.endpoints)) == placement.ranks == ranks
        order = [fabric.endpoints.index(endpoint) for endpoint in placement.endpoints]
        assert order == sorted(order)
        assert set(placement.endpoints) <= set(free)


def fewest_sets(counts: list[int], ranks: int) -> int:
    """How many of these counts are needed to make up so many ranks."""
    taken = 0
    for number, count in enumerate(sorted(counts, reverse=True), start=1):
        taken += count
        if taken >= ranks:
            return number
    raise AssertionError


@settings(max_examples=60)
@given(
    busy=st.lists(st.integers(min_value=0, max_value=8), min_size=1, max_size=4),
    ranks=st.integers(min_value=1, max_value=32),
    model=st.sampled_from(["dgx-h100", "pcie-l40s"]),
)
def test_pack_takes_the_fewest_nodes_there_can_be(busy: list[int], ranks: int, model: str) -> None:
    fabric = fabric_of(f"model:{model} node:4 busy:{','.join(map(str, busy))}")
    free = free_endpoints(fabric)
    if len(free) < ranks:
        return
    counts = [sum(end.host == node.host for end in free) for node in fabric.nodes]
    assert len(pack(fabric, ranks, among=free).hosts) == fewest_sets(counts, ranks)


@settings(max_examples=60)
@given(data=st.data())
def test_fewest_nodes_are_the_fewest(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    ends = [Endpoint(HostName(f"n{i}"), s) for i, count in enumerate(counts) for s in range(count)]
    ranks = data.draw(st.integers(1, len(ends)))
    taken = fewest_nodes(data.draw(st.permutations(ends)), ranks)
    assert len(taken) == len(set(taken)) == ranks
    assert len({end.host for end in taken}) == fewest_sets(counts, ranks)


@pytest.mark.parametrize("place", [pack, spread])
def test_more_ranks_than_endpoints_are_refused(place: Callable[..., Placement]) -> None:
    with pytest.raises(WorkloadError) as caught:
        place(fabric_of(H100), 65)
    assert str(caught.value) == "--gpus: 65 ranks asked of 64; ask for 64 or fewer"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("place", [pack, spread])
@pytest.mark.parametrize("ranks", [0, -1])
def test_no_ranks_are_refused(place: Callable[..., Placement], ranks: int) -> None:
    with pytest.raises(WorkloadError, match=f"--gpus: {ranks} ranks; ask for one or more"):
        place(fabric_of(H100), ranks)


def test_ranks_among_nothing_are_refused() -> None:
    with pytest.raises(WorkloadError, match="--gpus: 1 ranks asked of 0; the map has none"):
        pack(fabric_of(H100), 1, among=[])


def test_a_busy_map_offers_only_what_is_free() -> None:
    with pytest.raises(WorkloadError, match="16 ranks asked of 15; ask for 15 or fewer"):
        free_pack(BUSY, 16)


def test_free_endpoints_are_those_nobody_holds() -> None:
    assert [str(end) for end in free_endpoints(fabric_of(BUSY))] == [
        *(f"h100-001:{slot}" for slot in range(3, 8)),
        *(f"h100-003:{slot}" for slot in range(8)),
        *(f"h100-004:{slot}" for slot in (6, 7)),
    ]


def test_domains_with_room_stand_smallest_first() -> None:
    fabric = fabric_of(BUSY)
    assert [d.name for d in domains_with_room(fabric, 1)] == ["h100-004", "h100-001", "h100-003"]
    assert [d.name for d in domains_with_room(fabric, 5)] == ["h100-001", "h100-003"]
    assert domains_with_room(fabric, 9) == []


def test_the_largest_free_domain_is_counted() -> None:
    assert largest_free_domain(fabric_of(BUSY)) == 8
    assert largest_free_domain(fabric_of("model:dgx-h100 node:1 busy:8")) == 0


@settings(max_examples=50)
@given(data=st.data())
def test_a_placement_written_and_read_is_the_same(data: st.DataObject) -> None:
    fabric = fabric_of(H100)
    ends = data.draw(
        st.lists(st.sampled_from(fabric.endpoints), min_size=1, max_size=20, unique=True)
    )
    placement = Placement(tuple(ends))
    assert placement_from_text(fabric, placement.text(), where="jobs.txt") == placement


def test_empty_lines_comments_and_windows_lines_are_read_over() -> None:
    text = "# two ranks\r\n\r\nh100-002 3   # first\r\n  h100-001\t0\r\n"
    placement = placement_from_text(fabric_of(H100), text, where="jobs.txt")
    assert names(placement) == ["h100-002:3", "h100-001:0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h100-001 0\nh100-001\n", "jobs.txt: line 2: 'h100-001'; write: host slot"),
        ("h100-001 0 1\n", "jobs.txt: line 1: 'h100-001 0 1'; write: host slot"),
        ("h100-001 cpu0\n", "jobs.txt: line 1: 'h100-001 cpu0'; write: host slot"),
        ("h100-001 -1\n", "jobs.txt: line 1: 'h100-001 -1'; write: host slot"),
        pytest.param(
            f"a {'9' * 5000}",
            "jobs.txt: line 1: 'a 9999999999...9999999999999'; write: host slot",
            id="long",
        ),
        ("\n# x\nnode9 0\n", "jobs.txt: line 3: no host 'node9' in this map; it has h100-001, say"),
        (
            "h100-001 8\n",
            "jobs.txt: line 1: h100-001 has no slot 8; it has 0, 1, 2, 3, 4, 5, 6, 7",
        ),
        (
            "h100-001 0\nh100-002 0\n\nh100-001 0\n",
            "jobs.txt: line 4: h100-001:0 stands already on line 1; name each slot once",
        ),
        ("", "jobs.txt: no ranks; write one host and slot a line"),
        ("# nothing\n", "jobs.txt: no ranks; write one host and slot a line"),
    ],
)
def test_a_placement_file_that_cannot_be_is_refused_by_line(text: str, message: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        placement_from_text(fabric_of(H100), text, where="jobs.txt")
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


def test_hosts_stand_in_the_order_of_their_first_rank() -> None:
    text = "h100-003 0\nh100-001 0\nh100-003 1\n"
    placement = placement_from_text(fabric_of(H100), text, where="jobs.txt")
    assert placement.hosts == ("h100-003", "h100-001")


def summary(*counts: tuple[str, int]) -> str:
    ends = [Endpoint(HostName(host), slot) for host, count in counts for slot in range(count)]
    return Placement(tuple(ends)).summary()


def test_a_summary_folds_runs_of_hosts_with_one_count() -> None:
    assert summary(("a", 8)) == "a x 8"
    assert summary(("a1", 8), ("a2", 8), ("a3", 4)) == "a1..2 x 8, a3 x 4"
    assert summary(("a1", 1), ("a2", 2), ("a3", 1)) == "a1 x 1, a2 x 2, a3 x 1"
    assert summary() == ""


def test_a_map_without_nodes_refuses_every_placement() -> None:
    fabric = Fabric(FleetMap(kind="fleet_map", schema_version=1))
    assert (free_endpoints(fabric), largest_free_domain(fabric)) == ([], 0)
    with pytest.raises(WorkloadError, match="the map has none"):
        pack(fabric, 1)
