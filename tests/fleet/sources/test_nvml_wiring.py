"""The wiring is worked out anew when, and only when, the driver says something else of it."""

from collections.abc import Callable
from typing import Any

import pytest

from fleet.fields import HostName
from fleet.probe.keys import is_state
from fleet.reading import Answer, CollectedAt, NodeReading, Stop, StopReason
from fleet.sources.nvml_answers import Gaps
from fleet.sources.nvml_calls import Calls
from fleet.sources.nvml_wiring import WiringMemory
from fleet.sources.reading import Memory, snapshot_from_reading
from fleet.wiring import LinkState
from tests.fakes.nvml import NOON, calls_of
from tests.fakes.nvml_machine import FakeProfile
from tests.fakes.nvml_profiles import NAMES, profile_named, with_faults

H100 = profile_named("h100-8")


def reading_of(machine: FakeProfile, *stops: Stop, **other: Any) -> NodeReading:
    parts: dict[str, Any] = {
        "kind": "node_reading",
        "schema_version": 1,
        "host": HostName("n1"),
        "collected_at": CollectedAt(files=NOON, driver=NOON),
        "answers": {**calls_of(machine).answers, **other},
        "stops": stops,
    }
    return NodeReading(**parts)


def hotter(machine: FakeProfile) -> FakeProfile:
    return machine.with_gpu(
        0, temperature_celsius=81, power_mw=650_000, memory_used_bytes=2**33, pids=(7,)
    )


def test_a_link_that_goes_down_is_down_in_the_next_reading() -> None:
    memory = Memory()
    first = snapshot_from_reading(reading_of(H100), memory=memory)
    second = snapshot_from_reading(reading_of(H100.with_link(2, 5, state=0)), memory=memory)
    third = snapshot_from_reading(reading_of(H100), memory=memory)
    states = [snapshot.wiring.gpus[2].ports[5].state for snapshot in (first, second, third)]
    assert states == [LinkState.UP, LinkState.DOWN, LinkState.UP]


def test_a_narrower_pcie_link_shows_in_the_next_reading() -> None:
    memory = Memory()
    width = Answer(value=8)
    first = snapshot_from_reading(reading_of(H100), memory=memory)
    second = snapshot_from_reading(
        reading_of(H100, **{"nvmlDeviceGetCurrPcieLinkWidth(2)": width}), memory=memory
    )
    assert [s.wiring.gpus[2].pcie_width for s in (first, second)] == [16, 8]


CHANGES: dict[str, Callable[[FakeProfile], FakeProfile]] = {
    "state alone": hotter,
    "link speed": lambda m: m.with_link(0, 0, speed_mbps=1000),
    "link version": lambda m: m.with_link(0, 0, version=5),
    "far port": lambda m: m.with_link(0, 0, remote_link=9),
    "far end": lambda m: m.with_link(0, 0, remote_pci_bus_id="00000000:99:00.0"),
    "memory": lambda m: m.with_gpu(0, memory_bytes=2**30),
    "no links": lambda m: m.with_gpu(0, links=()),
    "no fields": lambda m: m.lacking("nvmlDeviceGetFieldValues"),
    "one GPU less": lambda m: FakeProfile(**vars(m) | {"gpus": m.gpus[:-1]}),
    "peer access": lambda m: FakeProfile(**vars(m) | {"p2p": (5, 5)}),
    "no memory told": lambda m: with_faults(m, 0, returns={"nvmlDeviceGetMemoryInfo_v2": 999}),
    "lost": lambda m: with_faults(m, 0, lost=True),
}


@pytest.mark.proof
@pytest.mark.parametrize("name", CHANGES)
def test_a_reading_after_another_gives_what_it_would_give_alone(name: str) -> None:
    memory = Memory()
    changed = reading_of(CHANGES[name](H100))
    for reading in (reading_of(H100), changed, reading_of(H100)):
        assert snapshot_from_reading(reading, memory=memory) == snapshot_from_reading(reading)


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_read_after_another_is_as_it_would_be_alone(name: str) -> None:
    memory = Memory()
    for machine in (H100, profile_named(name), hotter(profile_named(name))):
        reading = reading_of(machine)
        assert snapshot_from_reading(reading, memory=memory) == snapshot_from_reading(reading)


def test_a_stop_is_the_reason_of_what_is_missing_in_the_reading_it_stands_in() -> None:
    stop = Stop(chapter="pairs 0", at="x(0,1)", reason=StopReason.TIMED_OUT, waited_s=1.0)
    answers = {k: a for k, a in calls_of(H100).answers.items() if "P2PStatus" not in k}
    wirings = WiringMemory()
    told = []
    for stops in ({}, {"pairs 0": stop}):
        gaps = Gaps()
        wirings.wiring(Calls(answers, stops), range(8), gaps)
        told.append({a.path: a.reason.value for a in gaps.absences}["wiring.p2p[0-1]"])
    assert told == ["not_asked", "timed_out"]


def test_while_only_the_state_changes_it_is_the_very_same_wiring() -> None:
    wirings = WiringMemory()
    first, second, third = (
        wirings.wiring(calls_of(machine), range(8), Gaps())
        for machine in (H100, hotter(H100), H100.with_link(0, 0, state=0))
    )
    assert first is second
    assert first is not third


def test_it_looks_at_every_answer_that_a_wiring_is_made_of() -> None:
    """Drop any one answer of the inventory: the memory must not give the wiring it had."""
    answers = dict(calls_of(profile_named("l40s-2")).answers)
    wirings = WiringMemory()
    whole = wirings.wiring(Calls(answers), range(2), Gaps())
    for key in (key for key in answers if not is_state(key)):
        less = {k: a for k, a in answers.items() if k != key}
        assert wirings.wiring(Calls(less), range(2), Gaps()) is not whole
