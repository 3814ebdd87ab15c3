"""Makes what the tests of latency need: fabrics, schedules, uniform costs, stand-ins for noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fleet import fleet_from_spec
from topology.collective.algorithms import build_schedules
from topology.collective.layout import RankLayout
from topology.collective.schedule import Schedule
from topology.collective.stages import Request
from topology.fabric.from_fleet import Fabric
from topology.fabric.link_figures import Jitter
from topology.latency.cost import Costs, RoundCost
from topology.latency.monte_carlo import sample_s
from topology.latency.noise import MessageNoise
from topology.words import Collective

FloatArray = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], FloatArray]


@cache
def fabric_of(spec: str) -> Fabric:
    """The fabric of a synthetic fleet, such as ``dgx-h100 node:2``; made once."""
    return Fabric(fleet_from_spec(f"model:{spec}"))


def uniform_layout(ranks: int) -> RankLayout:
    """Ranks that are all alike, in one domain that reduces in the switch."""
    order = tuple(range(ranks))
    return RankLayout(
        ranks=ranks,
        cliques=(order,),
        domains=(order,),
        domain_reduces=(True,),
        orders=(order,),
        chains=((order,),),
    )


def schedule_of(
    name: str, ranks: int, collective: Collective = Collective.ALL_REDUCE, *, pieces: int = 1
) -> Schedule:
    """The schedule of a named algorithm on ranks that are all alike."""
    request = Request(collective, uniform_layout(ranks), pieces=pieces)
    return build_schedules(name, request)[0]


def uniform_costs(
    schedule: Schedule,
    *,
    alpha_s: float,
    size_bytes: float = 0.0,
    bytes_per_s: float = 1.0,
    software_s: float = 0.0,
    launch_s: float = 0.0,
    base_s: float = 0.0,
) -> Costs:
    """Every hop costs the same; bandwidth is each message's own, nothing is shared."""
    rounds = []
    for round_ in schedule.rounds:
        chunk_s = schedule.chunk_fraction * size_bytes / bytes_per_s
        rounds.append(
            RoundCost(
                round=round_,
                wire_s=np.full(round_.transfers, alpha_s),
                software_s=np.full(round_.transfers, software_s),
                bandwidth_s=round_.chunk_count.astype(np.float64) * chunk_s,
                jitter=np.zeros(round_.transfers, dtype=np.int64),
            )
        )
    return Costs(schedule, launch_s, base_s, tuple(rounds), ("uniform",))


def make_jitter(**changes: float) -> Jitter:
    """A jitter law without body and detours, but for the changes."""
    quiet = {
        "body_median_s": 0.0,
        "body_sigma": 0.0,
        "detour_probability": 0.0,
        "detour_median_s": 1e-6,
        "detour_sigma": 0.0,
        "detour_cap_s": 1.0,
    }
    return Jitter.model_validate({**quiet, **changes})


@dataclass
class Steps:
    """Stand-in for a noise: adds what ``draw(rng, shape)`` gives."""

    draw: Draw

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        arrival_s += self.draw(rng, arrival_s.shape)


@dataclass
class Recorder:
    """Stand-in for a noise: draws, and remembers what it added, call by call."""

    draw: Draw
    added: list[FloatArray] = field(default_factory=list)

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        values = self.draw(rng, arrival_s.shape)
        self.added.append(values)
        arrival_s += values


@dataclass
class Player:
    """Stand-in for a noise: adds prepared values, call by call."""

    values: Sequence[FloatArray]
    calls: int = 0

    def add_to(self, arrival_s: FloatArray, rng: np.random.Generator) -> None:
        arrival_s += self.values[self.calls]
        self.calls += 1


def exponential(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    """Steps with mean 1."""
    return rng.standard_exponential(shape)


def samples_of(costs: Costs, *noises: Any, trials: int, seed: int = 1) -> FloatArray:
    """Completion times under noises or stand-ins for them."""
    rng = np.random.default_rng(seed)
    return sample_s(costs, cast("list[MessageNoise]", list(noises)), trials=trials, rng=rng)


def assert_share_below(samples: FloatArray, value: float, share: float) -> None:
    """The share of samples at or below a quantile agrees within 4 standard errors."""
    seen = float((samples <= value).mean())
    error = (share * (1 - share) / len(samples)) ** 0.5
    assert abs(seen - share) <= 4 * error, f"{seen} of samples below, {share} expected"


def assert_mean(samples: FloatArray, mean: float) -> None:
    """The mean agrees within 4 standard errors."""
    error = float(samples.std()) / len(samples) ** 0.5
    assert abs(samples.mean() - mean) <= 4 * error, f"{samples.mean()} is not {mean} +- {error}"


def assert_quantile(samples: FloatArray, value: float, share: float, *, rel: float) -> None:
    """A quantile agrees within 4 standard errors with a value that is itself known to ``rel``."""
    error = (share * (1 - share) / len(samples)) ** 0.5
    at_most, at_least = ((samples <= value * (1 + sign * rel)).mean() for sign in (1, -1))
    assert at_most >= share - 4 * error, f"{np.quantile(samples, share)} is above {value}"
    assert at_least <= share + 4 * error, f"{np.quantile(samples, share)} is below {value}"
