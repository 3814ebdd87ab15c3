"""Replay: proves a schedule by moving the data, and each message by a link that is there.

The state of a rank's chunk is how often each rank's contribution is in it. At the end every rank
must hold what the collective promises, each contribution exactly once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topology.collective.schedule import ROOT, Round, Schedule
from topology.errors import ScheduleError
from topology.fabric.route_table import RouteMap
from topology.words import Collective

State = NDArray[np.int16]

_REDUCES = (Collective.ALL_REDUCE, Collective.REDUCE_SCATTER, Collective.REDUCE)


def prove(schedule: Schedule, routes: RouteMap | None = None) -> None:
    """Replay a schedule; with ``routes`` also check that every message has a way.

    Raises:
        ScheduleError: a rank ends without its data, or with a contribution twice; names both.
        UnreachableError: a message between ranks that no link joins.
    """
    state = _initial(schedule)
    step = 0
    for round_ in schedule.rounds:
        for repetition in range(round_.repeats):
            _check_channel_use(round_, step)
            _apply(state, round_, _sent(schedule, round_, repetition), step)
            step += 1
        if routes is not None:
            routes.table(*_vertices(round_, schedule, routes))
    _check_end(schedule, state)


def _vertices(
    round_: Round, schedule: Schedule, routes: RouteMap
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if routes.rank_count != schedule.ranks:
        raise ScheduleError(f"{schedule.ranks} ranks on a placement of {routes.rank_count}")
    return round_.source, round_.destination


def _initial(schedule: Schedule) -> State:
    """Contributions at the start, shape (vertices, chunks, ranks); switches start empty."""
    n, chunks = schedule.ranks, schedule.chunks
    state = np.zeros((schedule.vertices, chunks, n), dtype=np.int16)
    if schedule.collective in _REDUCES:
        state[np.arange(n), :, np.arange(n)] = 1
    elif schedule.collective is Collective.BROADCAST:
        state[ROOT, :, ROOT] = 1
    else:
        state[schedule.owner, np.arange(chunks), schedule.owner] = 1
    return state


def _apply(
    state: State, round_: Round, sent: Sequence[tuple[int, NDArray[np.int64]]], step: int
) -> None:
    """All messages of a step leave with what their senders hold before it."""
    held = [_held(state, int(round_.source[i]), chunks, step) for i, chunks in sent]
    copied: set[tuple[int, int]] = set()
    added: set[tuple[int, int]] = set()
    for (i, chunks), data in zip(sent, held, strict=True):
        destination = int(round_.destination[i])
        places = {(destination, chunk) for chunk in chunks.tolist()}
        if round_.reduces[i]:
            state[destination, chunks] += data
            added |= places
        else:
            state[destination, chunks] = data
            _check_apart(copied, places, step)
            copied |= places
    _check_apart(copied, added, step)


def _held(state: State, source: int, chunks: NDArray[np.int64], step: int) -> State:
    """What a sender holds of the chunks of a message."""
    is_there = len(chunks) > 0 and chunks.min() >= 0 and chunks.max() < state.shape[1]
    if is_there and state[source, chunks].any(axis=1).all():
        return np.asarray(state[source, chunks])
    raise ScheduleError(
        "sends a chunk it does not hold",
        field=f"rank {source}, step {step}, chunk {chunks[0] if len(chunks) else 'none'}",
    )


def _sent(
    schedule: Schedule, round_: Round, repetition: int
) -> list[tuple[int, NDArray[np.int64]]]:
    """Messages of a step, each with those of its chunks that have bytes."""
    transfer, chunk = round_.chunks(repetition)
    if schedule.fractions is not None:
        has_bytes = schedule.fractions[chunk] > 0
        transfer, chunk = transfer[has_bytes], chunk[has_bytes]
    ends = np.searchsorted(transfer, np.arange(1, round_.transfers + 1))
    parts = np.split(chunk, ends[:-1])
    return list(enumerate(parts[: round_.transfers]))


def _check_apart(copied: set[tuple[int, int]], other: set[tuple[int, int]], step: int) -> None:
    for rank, chunk in sorted(copied & other):
        raise ScheduleError(
            "a message overwrites what another of its step writes",
            field=f"rank {rank}, step {step}, chunk {chunk}",
        )


def _check_channel_use(round_: Round, step: int) -> None:
    if (round_.source == round_.destination).any():
        rank = int(round_.source[round_.source == round_.destination][0])
        raise ScheduleError("sends to itself", field=f"rank {rank}, step {step}")


def _check_end(schedule: Schedule, state: State) -> None:
    for rank, chunk, wanted in _promises(schedule):
        held = state[rank, chunk]
        if not np.array_equal(held, wanted):
            wrong = int(np.flatnonzero(held != wanted)[0])
            raise ScheduleError(
                f"ends with rank {wrong}'s part of chunk {chunk} {held[wrong]} times, "
                f"not {wanted[wrong]}",
                field=f"rank {rank}, step {schedule.steps}",
            )


def _promises(schedule: Schedule) -> list[tuple[int, int, State]]:
    """What must be held at the end: (rank, chunk, contributions)."""
    n, chunks = schedule.ranks, range(schedule.chunks)
    one = np.eye(n, dtype=np.int16)
    everyone = np.ones(n, dtype=np.int16)
    match schedule.collective:
        case Collective.ALL_REDUCE:
            return [(rank, chunk, everyone) for rank in range(n) for chunk in chunks]
        case Collective.REDUCE_SCATTER:
            return [(int(schedule.owner[chunk]), chunk, everyone) for chunk in chunks]
        case Collective.ALL_GATHER:
            owner = schedule.owner
            return [(rank, chunk, one[owner[chunk]]) for rank in range(n) for chunk in chunks]
        case Collective.BROADCAST:
            return [(rank, chunk, one[ROOT]) for rank in range(n) for chunk in chunks]
        case Collective.REDUCE:
            return [(ROOT, chunk, everyone) for chunk in chunks]
        case Collective.ALLTOALL | Collective.ALLTOALLV | Collective.SENDRECV:
            assert schedule.target is not None, "it names the target of each chunk"
            pairs = enumerate(zip(schedule.target, schedule.owner, strict=True))
            has_bytes = (
                np.ones(schedule.chunks) if schedule.fractions is None else schedule.fractions
            )
            return [(int(to), c, one[source]) for c, (to, source) in pairs if has_bytes[c]]
