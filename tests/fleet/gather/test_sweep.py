import asyncio
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.fields import AbsenceReason
from fleet.gather.outcome import Answer, Collected, FailureReason, HostFailure
from fleet.gather.report import gathering_document, outcome_rows, outcome_text
from fleet.gather.sweep import (
    Gathering,
    Outcome,
    gather_fleet,
    gathering_from_outcomes,
    settle_names,
)
from tests.factories import absent
from tests.fleet.gather.far import NOW, snapshot_bytes, snapshot_of


def named(**names: str) -> list[Collected]:
    """Hosts as asked, with the names they give themselves."""
    return [Collected(host, snapshot_of(name)) for host, name in names.items()]


def settled(collected: list[Collected], *silent: str) -> tuple[list[str], list[str]]:
    """Who is in the map, and who bears another's name."""
    asked = [*(one.host for one in collected), *silent]
    kept, failures = settle_names(collected, asked)
    assert all(failure.reason is FailureReason.NAME_TAKEN for failure in failures)
    return [one.host for one in kept], [failure.host for failure in failures]


def gathered(*outcomes: Outcome) -> Gathering:
    """A sweep that brought these outcomes, in this order."""
    by_host = {outcome.host: outcome for outcome in outcomes}
    return gathering_from_outcomes(list(by_host), by_host, max_age_s=None, now=NOW)


class Askable:
    """Many hosts, of which some take their time; remembers how many were asked at once."""

    def __init__(self, count: int) -> None:
        self.hosts = tuple(f"g{i}" for i in range(count))
        self.now = self.most = 0

    async def ask(self, host: str) -> Answer | HostFailure:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001 * (hash(host) % 5))
        self.now -= 1
        return Answer(host, lambda: snapshot_bytes(host))


def test_a_node_is_named_as_it_names_itself() -> None:
    assert settled(named(address="gpu1", alias="gpu2")) == (["address", "alias"], [])


def test_the_name_of_a_host_that_was_asked_is_its_own_though_it_be_silent() -> None:
    assert settled(named(gpu8="gpu7"), "gpu7") == ([], ["gpu8"])
    assert settled(named(gpu8="gpu7", gpu7="gpu7")) == (["gpu7"], ["gpu8"])


def test_two_hosts_whose_names_are_swapped_are_both_told() -> None:
    assert settled(named(gpu7="gpu8", gpu8="gpu7")) == ([], ["gpu7", "gpu8"])


def test_of_two_aliases_of_one_node_the_newest_is_taken() -> None:
    old = Collected("a", snapshot_of("gpu1", at=NOW - timedelta(hours=1)))
    new = Collected("b", snapshot_of("gpu1", at=NOW))
    timeless = Collected("c", snapshot_of("gpu1", at=None))
    assert settled([old, new, timeless]) == (["b"], ["a", "c"])
    assert settled([new, Collected("d", new.snapshot)]) == (["b"], ["d"])


NAMES = st.sampled_from(["a", "b", "c"])


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), NAMES), st.sets(NAMES))
def test_no_name_is_in_the_map_twice_and_nobody_is_lost(
    names: dict[str, str], silent: set[str]
) -> None:
    collected = named(**names)
    kept, failures = settle_names(collected, [*names, *silent])
    own_names = [one.snapshot.host for one in kept]
    assert len(set(own_names)) == len(own_names)
    assert sorted([*(one.host for one in kept), *(f.host for f in failures)]) == sorted(names)


def test_as_many_are_asked_at_once_as_may_be() -> None:
    hosts = Askable(100)
    found = gather_fleet(hosts, parallel=7)
    assert hosts.most == 7
    assert [one.host for one in found.collected] == list(hosts.hosts)
    assert len(found.fleet.nodes) == 100


def test_nobody_to_ask_is_an_empty_map() -> None:
    found = gather_fleet(Askable(0))
    assert (found.is_empty, found.is_partial, len(found.fleet.nodes)) == (True, False, 0)


def test_every_outcome_is_told_as_it_comes() -> None:
    told: list[str] = []
    gather_fleet(Askable(9), parallel=3, on_outcome=lambda outcome: told.append(outcome.host))
    assert sorted(told) == [f"g{i}" for i in range(9)]


def test_nodes_wired_alike_share_one_wiring() -> None:
    found = gather_fleet(Askable(5))
    assert len({id(one.snapshot.wiring) for one in found.collected}) == 1


def test_a_device_that_does_not_answer_makes_a_sweep_partial() -> None:
    lost = snapshot_of("gpu2", absences=absent("gpus[3]", reason=AbsenceReason.GPU_LOST))
    found = gathered(Collected("gpu1", snapshot_of("gpu1")), Collected("b", lost))
    assert found.is_partial
    assert outcome_text(found) == "gpu1 ok, b faulty (gpu3: gpu_lost)"
    assert gathering_document(found)["faults"] == [
        {"node": "gpu2", "device": "gpu3", "reason": "gpu_lost", "detail": "gpu_lost"}
    ]


def test_failures_are_told_in_the_order_asked_and_folded() -> None:
    hosts = [f"gpu{i}" for i in range(1, 7)]
    found = gathered(
        *(Collected(host, snapshot_of(host)) for host in hosts[:3]),
        HostFailure("gpu4", FailureReason.TIMED_OUT, "no answer within 20 s"),
        HostFailure("gpu5", FailureReason.TIMED_OUT, "no answer within 20 s"),
        HostFailure("gpu6", FailureReason.AUTH, "Permission denied (publickey)"),
    )
    assert outcome_rows(found) == [
        ("gpu[1-3]", "3", "ok", ""),
        ("gpu[4-5]", "2", "timed_out", "no answer within 20 s"),
        ("gpu6", "1", "auth", "Permission denied (publickey)"),
    ]
    document = gathering_document(found)
    assert document["summary"] == {
        "asked": 6,
        "collected": 3,
        "stale": 0,
        "failed": 3,
        "text": outcome_text(found),
    }
    assert [failure["host"] for failure in document["failures"]] == ["gpu4", "gpu5", "gpu6"]
    assert document["hosts"][0] == {"host": "gpu1", "node": "gpu1"}
    assert document["hosts"][5] == {"host": "gpu6", "node": None}


@pytest.mark.parametrize("broken", [KeyError("x"), RecursionError("deep")])
def test_an_answer_that_breaks_the_reader_costs_its_host(broken: Exception) -> None:
    class Breaking(Askable):
        async def ask(self, host: str) -> Answer | HostFailure:
            return (
                Answer(host, lambda: snapshot_bytes(host)) if host != "g1" else await self.bad(host)
            )

        async def bad(self, host: str) -> Answer:
            def document() -> bytes:
                raise broken

            return Answer(host, document)

    found = gather_fleet(Breaking(3))
    assert [one.host for one in found.collected] == ["g0", "g2"]
    assert found.failures[0].reason is FailureReason.GARBAGE
