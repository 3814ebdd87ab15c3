"""The replay in time: against an independent one in plain Python, and what must never change it."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.topology.latency.factories import (
    FloatArray,
    Player,
    Recorder,
    Steps,
    exponential,
    make_jitter,
    samples_of,
    schedule_of,
    uniform_costs,
)
from topology.collective.schedule import Round, Schedule
from topology.latency.cost import Costs, RoundCost
from topology.latency.monte_carlo import (
    MOST_SIDE_BY_SIDE,
    STEP_ELEMENTS,
    noiseless_breakdown,
    noiseless_s,
    sample_s,
)
from topology.latency.noise import message_noise
from topology.words import Collective

ALGORITHMS = ("ring", "tree", "recursive_doubling", "nvls", "double_binary_tree")


# An independent replay: the longest way through the messages, one message at a time.


class Message(NamedTuple):
    """One message of one step of one trial, as the documentation of ``Round`` tells it."""

    step: int
    source: int
    destination: int
    channel: int
    lockstep: bool
    holds: bool  # a sender's next send waits until this one has left
    bandwidth_s: float
    cost_s: float
    noise_s: float


def messages_of(costs: Costs, added: list[FloatArray], trial: int) -> list[Message]:
    """All messages in order; noise comes step by step, class by class, as it was recorded."""
    values = iter(added)
    messages = []
    step = 0
    for cost in costs.rounds:
        round_ = cost.round
        for repetition in range(round_.repeats):
            noise = {}
            for number in range(len(costs.classes)):
                rows = [i for i in range(round_.transfers) if cost.jitter[i] == number]
                if rows:
                    drawn = next(values)
                    noise.update({row: drawn[k][trial] for k, row in enumerate(rows)})
            messages += [
                Message(
                    step=step,
                    source=int(round_.source[i]),
                    destination=int(round_.destination[i]),
                    channel=int(round_.channel[i]) + repetition * round_.channel_shift,
                    lockstep=round_.lockstep,
                    holds=not round_.lockstep and bool(cost.bandwidth_s.any()),
                    bandwidth_s=float(cost.bandwidth_s[i]),
                    cost_s=float(cost.wire_s[i] + cost.software_s[i] + cost.bandwidth_s[i]),
                    noise_s=float(noise[i]),
                )
                for i in range(round_.transfers)
            ]
            step += 1
    return messages


def longest_way_s(costs: Costs, messages: list[Message]) -> float:
    """When the last message to a rank arrives: each starts after all that it waits for."""
    starts: list[float] = []
    arrivals: list[float] = []
    for message in messages:
        waits = [0.0]
        for before, start, arrival in zip(messages, starts, arrivals, strict=False):
            if before.step >= message.step:
                continue
            same_lane = before.channel == message.channel
            if same_lane and before.destination == message.source:
                waits.append(arrival)
            if message.lockstep and same_lane and before.destination == message.destination:
                waits.append(arrival)
            if message.holds and before.holds and before.source == message.source:
                waits.append(start + before.bandwidth_s)
        starts.append(max(waits))
        arrivals.append(starts[-1] + message.cost_s + message.noise_s)
    ends = [
        a for m, a in zip(messages, arrivals, strict=True) if m.destination < costs.schedule.ranks
    ]
    return max(ends, default=0.0) + costs.launch_s + costs.base_s


seconds = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.75])


@st.composite
def random_costs(draw: Any) -> Costs:
    """Any rounds over up to six vertices, of which the last may be a switch."""
    ranks = draw(st.integers(2, 5))
    switches = draw(st.integers(0, 1))
    channels = draw(st.integers(1, 3))
    classes = draw(st.integers(1, 2))
    rounds = []
    for _ in range(draw(st.integers(1, 4))):
        repeats = draw(st.integers(1, 3))
        shift = draw(st.integers(0, 1)) if repeats <= channels else 0
        last = channels - 1 - shift * (repeats - 1)
        vertex = st.integers(0, ranks + switches - 1)
        pairs = st.tuples(vertex, vertex).filter(lambda pair: pair[0] != pair[1])
        rows = draw(st.lists(st.tuples(pairs, st.integers(0, last)), min_size=1, max_size=6))
        m = len(rows)

        def times(m: int = m) -> FloatArray:
            return np.array(draw(st.lists(seconds, min_size=m, max_size=m)))

        round_ = Round(
            source=np.array([pair[0] for pair, _ in rows]),
            destination=np.array([pair[1] for pair, _ in rows]),
            channel=np.array([channel for _, channel in rows]),
            base=np.zeros(m, dtype=np.int64),
            offset=np.zeros(m, dtype=np.int64),
            chunk_count=np.ones(m, dtype=np.int64),
            reduces=np.zeros(m, dtype=np.bool_),
            repeats=repeats,
            channel_shift=shift,
            lockstep=draw(st.booleans()),
        )
        jitter = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=m, max_size=m)))
        rounds.append(RoundCost(round_, times(), times(), times(), jitter))
    schedule = Schedule(
        collective=Collective.ALL_REDUCE,
        algorithm="random",
        ranks=ranks,
        switches=switches,
        channels=channels,
        chunk_fraction=1.0,
        owner=np.zeros(1, dtype=np.int64),
        rounds=tuple(cost.round for cost in rounds),
    )
    return Costs(schedule, 0.5, 0.25, tuple(rounds), tuple("ab"[:classes]))


@settings(max_examples=100, deadline=None)
@given(costs=random_costs(), seed=st.integers(0, 1000))
def test_random_schedules_complete_when_the_longest_way_ends(costs: Costs, seed: int) -> None:
    noise = Recorder(exponential)
    samples = samples_of(costs, *[noise] * len(costs.classes), trials=3, seed=seed)
    for trial, sample in enumerate(samples):
        messages = messages_of(costs, noise.added, trial)
        assert sample == pytest.approx(longest_way_s(costs, messages), rel=1e-12)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("ranks", [2, 3, 5, 6])
def test_algorithms_complete_when_the_longest_way_ends(name: str, ranks: int) -> None:
    costs = uniform_costs(
        schedule_of(name, ranks, pieces=3), alpha_s=1.0, size_bytes=1.0, software_s=0.5
    )
    noise = Recorder(exponential)
    samples = samples_of(costs, noise, trials=2)
    for trial, sample in enumerate(samples):
        expected = longest_way_s(costs, messages_of(costs, noise.added, trial))
        assert sample == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(costs=random_costs())
def test_breakdown_of_random_schedules_adds_up_to_the_longest_way(costs: Costs) -> None:
    terms = noiseless_breakdown(costs)
    assert terms.total_s == pytest.approx(noiseless_s(costs), rel=1e-12)
    assert min(terms.wire_s, terms.software_s, terms.bandwidth_s) >= 0


# Laws by hand.


def test_one_injected_delay_shifts_a_ring_by_itself() -> None:
    """Anchor B8: K tau + D; a second one adds only where the first can have caused it."""
    ranks, steps = 8, 14
    costs = uniform_costs(schedule_of("ring", ranks), alpha_s=1.0)
    for step, rank in ((0, 0), (3, 5), (13, 2)):
        assert delayed(costs, {(step, rank): 10.0}) == steps + 10
    # A delay of the message to rank r at step k reaches rank r + 1 at step k + 1.
    assert delayed(costs, {(3, 0): 10.0, (4, 1): 10.0}) == steps + 20
    assert delayed(costs, {(3, 0): 10.0, (3, 4): 10.0}) == steps + 10
    assert delayed(costs, {(3, 0): 10.0, (5, 7): 10.0}) == steps + 10


def delayed(costs: Costs, delays: dict[tuple[int, int], float]) -> float:
    """Completion of a ring with delays by (step, rank that sends)."""
    values = [np.zeros((8, 1)) for _ in range(14)]
    for (step, rank), delay in delays.items():
        values[step][rank, 0] = delay
    return float(samples_of(costs, Player(values), trials=1)[0])


@settings(max_examples=40, deadline=None)
@given(ranks=st.integers(2, 9), scale=st.floats(0.1, 100), extra=st.floats(0, 100))
def test_a_ring_scales_with_its_steps_and_shifts_with_a_constant(
    ranks: int, scale: float, extra: float
) -> None:
    """Anchor B1: T(c X) = c T(X); a constant a on every step adds K a."""
    costs = uniform_costs(schedule_of("ring", ranks), alpha_s=0.0)
    base = samples_of(costs, Steps(exponential), trials=20)
    scaled = samples_of(costs, Steps(lambda g, s: scale * exponential(g, s)), trials=20)
    shifted = samples_of(costs, Steps(lambda g, s: extra + exponential(g, s)), trials=20)
    assert scaled == pytest.approx(scale * base)
    assert shifted == pytest.approx(base + 2 * (ranks - 1) * extra)


def test_a_ring_lies_between_its_slowest_rank_alone_and_a_barrier_after_every_step() -> None:
    noise = Recorder(exponential)
    costs = uniform_costs(schedule_of("ring", 16), alpha_s=0.0)
    samples = samples_of(costs, noise, trials=200)
    added = np.array(noise.added)
    barrier = added.max(axis=1).sum(axis=0)[:200]
    alone = added.sum(axis=0).max(axis=0)[:200]
    assert (samples <= barrier).all()
    assert (samples >= alone).all()


# Metamorphic: with the same draws, more of anything never makes it faster.


@pytest.mark.parametrize("name", ALGORITHMS)
def test_more_jitter_or_a_detour_never_lowers_a_completion(name: str) -> None:
    costs = uniform_costs(schedule_of(name, 6), alpha_s=1.0, size_bytes=1.0)
    noise = Recorder(exponential)
    base = samples_of(costs, noise, trials=100)
    more = samples_of(costs, Player([1.5 * step for step in noise.added]), trials=100)
    assert (more >= base).all()
    for step in range(len(noise.added)):
        values = [array.copy() for array in noise.added]
        values[step][0] += 7.0
        assert (samples_of(costs, Player(values), trials=100) >= base).all()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_more_bytes_latency_or_software_never_lowers_a_completion(name: str) -> None:
    schedule = schedule_of(name, 6)
    link = {"alpha_s": 1.0, "size_bytes": 1.0, "software_s": 0.5}
    base = samples_of(uniform_costs(schedule, **link), Steps(exponential), trials=200)
    for what in link:
        more = uniform_costs(schedule, **{**link, what: 2 * link[what]})
        assert (samples_of(more, Steps(exponential), trials=200) >= base).all()


def test_a_further_rank_never_lowers_a_percentile_in_the_switch() -> None:
    """Coupled: the first ranks keep their draws."""
    draws = np.random.default_rng(5).exponential(size=(2, 9, MOST_SIDE_BY_SIDE))
    last = np.zeros(500)
    for ranks in range(2, 10):
        costs = uniform_costs(schedule_of("nvls", ranks), alpha_s=0.0)
        values = list(draws[:, :ranks, : STEP_ELEMENTS // ranks])
        samples = samples_of(costs, Player(values), trials=500)
        assert (samples >= last).all()
        last = samples


def test_a_further_rank_never_lowers_a_percentile_of_a_ring() -> None:
    costs = [uniform_costs(schedule_of("ring", n), alpha_s=1.0) for n in (2, 3, 8, 9, 32, 33)]
    samples = [samples_of(cost, Steps(exponential), trials=2_000) for cost in costs]
    for share in (0.5, 0.9, 0.99):
        values = [np.quantile(sample, share) for sample in samples]
        assert values == sorted(values)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_relabelled_ranks_change_nothing(name: str) -> None:
    """The same messages between renamed ranks, with the same draws, complete at the same times."""
    costs = uniform_costs(schedule_of(name, 6), alpha_s=1.0, size_bytes=1.0)
    vertices = costs.schedule.vertices
    name_of = np.arange(vertices)
    name_of[:6] = np.random.default_rng(2).permutation(6)
    rounds = tuple(
        replace(
            cost,
            round=replace(
                cost.round,
                source=name_of[cost.round.source],
                destination=name_of[cost.round.destination],
            ),
        )
        for cost in costs.rounds
    )
    renamed = replace(costs, rounds=rounds)
    before = samples_of(costs, Steps(exponential), trials=300)
    assert samples_of(renamed, Steps(exponential), trials=300) == pytest.approx(before)


# Draws: what they depend on, and what not.


def test_same_seed_same_draws_and_another_seed_others() -> None:
    costs = uniform_costs(schedule_of("ring", 8), alpha_s=1.0)
    law = message_noise(make_jitter(body_median_s=1.0, body_sigma=0.5, detour_probability=0.01))
    first, again, other = (samples_of(costs, law, trials=5_000, seed=s) for s in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert (first != other).all()


def test_trials_in_one_batch_and_in_many_have_one_law() -> None:
    """2,048 trials of a ring of 8 go side by side; 20,000 need ten batches."""
    costs = uniform_costs(schedule_of("ring", 8), alpha_s=1.0)
    law = message_noise(make_jitter(body_median_s=1.0, body_sigma=0.5, detour_probability=0.01))
    many = samples_of(costs, law, trials=20_000, seed=1)
    one = np.concatenate([samples_of(costs, law, trials=2_000, seed=s) for s in range(2, 12)])
    grid = np.sort(np.concatenate([many, one]))
    shares = [
        np.searchsorted(np.sort(sample), grid, side="right") / 20_000 for sample in (many, one)
    ]
    distance = float(np.abs(shares[0] - shares[1]).max())
    assert distance < 1.95 * (2 / 20_000) ** 0.5, "Kolmogorov-Smirnov at 1 in 1,000"


@settings(max_examples=30, deadline=None)
@given(costs=random_costs(), few=st.integers(1, 3_000), more=st.integers(0, 3_000))
def test_fewer_trials_are_the_first_of_more(costs: Costs, few: int, more: int) -> None:
    law = message_noise(make_jitter(body_median_s=1.0, body_sigma=0.5, detour_probability=0.01))
    laws = [law] * len(costs.classes)
    first = samples_of(costs, *laws, trials=few)
    assert first.tobytes() == samples_of(costs, *laws, trials=few + more)[:few].tobytes()


def test_trials_of_a_batch_do_not_share_their_draws() -> None:
    costs = uniform_costs(schedule_of("nvls", 2), alpha_s=0.0)
    assert len(set(samples_of(costs, Steps(exponential), trials=5_000).tolist())) == 5_000


@pytest.mark.parametrize("trials", [1, 2, 2_048, 2_049, 5_000])
def test_progress_ends_at_the_number_of_trials(trials: int) -> None:
    costs = uniform_costs(schedule_of("ring", 8), alpha_s=1.0)
    law = message_noise(make_jitter(body_median_s=1.0, body_sigma=0.5))
    told: list[tuple[int, int]] = []
    samples = sample_s(
        costs,
        [law],
        trials=trials,
        rng=np.random.default_rng(0),
        progress=lambda done, total: told.append((done, total)),
    )
    assert samples.shape == (trials,)
    assert told == sorted(told)
    assert told[-1] == (trials, trials)


def test_a_schedule_without_messages_takes_launch_and_base_alone() -> None:
    costs = uniform_costs(schedule_of("ring", 1), alpha_s=1.0, launch_s=3.0, base_s=2.0)
    assert noiseless_s(costs) == 5.0
    assert noiseless_breakdown(costs).total_s == 5.0
    assert samples_of(costs, Steps(exponential), trials=4).tolist() == [5.0] * 4
