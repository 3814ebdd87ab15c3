"""Replay: proves a schedule by moving the data, and each message by a link that is there.

The state of a rank's chunk is how often each rank's contribution is in it. At the end every rank
must hold what the collective promises, each contribution exactly once.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from topology.collective.schedule import ROOT, IntArray, Round, Schedule
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
            _apply(state, round_, *_sent(schedule, round_, repetition), step)
            step += 1
    if routes is not None:
        _check_ways(schedule, routes)
    _check_end(schedule, state)


def _check_ways(schedule: Schedule, routes: RouteMap) -> None:
    if routes.rank_count != schedule.ranks:
        raise ScheduleError(f"{schedule.ranks} ranks on a placement of {routes.rank_count}")
    pairs = [np.empty((2, 0), dtype=np.int64)]
    pairs += [np.stack([round_.source, round_.destination]) for round_ in schedule.rounds]
    routes.table(*np.unique(np.concatenate(pairs, axis=1), axis=1))


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


def _apply(state: State, round_: Round, transfer: IntArray, chunk: IntArray, step: int) -> None:
    """All messages of a step leave with what their senders hold before it."""
    held = _held(state, round_, transfer, chunk, step)
    reduces, destination = round_.reduces[transfer], round_.destination[transfer]
    place = destination * state.shape[1] + chunk
    copied, added = place[~reduces], place[reduces]
    order = np.argsort(copied, kind="stable")
    again = copied[order][1:][copied[order][1:] == copied[order][:-1]]
    _check_apart(np.union1d(again, np.intersect1d(copied, added)), state.shape[1], step)
    state[destination[~reduces], chunk[~reduces]] = held[~reduces]
    first, sums = _summed(added, held[reduces])
    state[destination[reduces][first], chunk[reduces][first]] += sums


def _summed(place: IntArray, held: State) -> tuple[IntArray, State]:
    """What comes to each place: the first message to it, and all of them together."""
    if not len(place):
        return place, held
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    if len(starts) == len(place):
        return np.arange(len(place)), held
    first = order[starts]
    return first, np.add.reduceat(held[order], starts, axis=0)


def _held(state: State, round_: Round, transfer: IntArray, chunk: IntArray, step: int) -> State:
    """What the senders hold of the chunks of their messages, shape (chunks sent, ranks)."""
    is_there = (chunk >= 0) & (chunk < state.shape[1])
    held = state[round_.source[transfer], np.where(is_there, chunk, 0)]
    is_there &= held.any(axis=1)
    count = np.bincount(transfer, minlength=round_.transfers)
    lacking = np.bincount(transfer[~is_there], minlength=round_.transfers)
    wrong = np.flatnonzero((lacking > 0) | (count == 0))
    if not len(wrong):
        return held
    chunks = chunk[transfer == wrong[0]]
    raise ScheduleError(
        "sends a chunk it does not hold",
        field=f"rank {round_.source[wrong[0]]}, step {step}, "
        f"chunk {chunks[0] if len(chunks) else 'none'}",
    )


def _sent(schedule: Schedule, round_: Round, repetition: int) -> tuple[IntArray, IntArray]:
    """Transfer and chunk of everything sent in a step that has bytes, both (chunks sent,)."""
    transfer, chunk = round_.chunks(repetition)
    if schedule.fractions is None:
        return transfer, chunk
    has_bytes = schedule.fractions[chunk] > 0
    return transfer[has_bytes], chunk[has_bytes]


def _check_apart(places: IntArray, chunks: int, step: int) -> None:
    for rank, chunk in np.stack(np.divmod(places[:1], chunks), axis=1).tolist():
        raise ScheduleError(
            "a message overwrites what another of its step writes",
            field=f"rank {rank}, step {step}, chunk {chunk}",
        )


def _check_channel_use(round_: Round, step: int) -> None:
    if (round_.source == round_.destination).any():
        rank = int(round_.source[round_.source == round_.destination][0])
        raise ScheduleError("sends to itself", field=f"rank {rank}, step {step}")


def _check_end(schedule: Schedule, state: State) -> None:
    everyone = np.ones(schedule.ranks, dtype=np.int16)
    alone = np.eye(schedule.ranks, dtype=np.int16)
    for rank, chunks, parts in _promises(schedule):
        held, wanted = state[rank, chunks], everyone if parts is None else alone[parts]
        if not np.array_equal(held, np.broadcast_to(wanted, held.shape)):
            row, wrong = np.argwhere(held != wanted)[0]
            raise ScheduleError(
                f"ends with rank {wrong}'s part of chunk {chunks[row]} {held[row, wrong]} times, "
                f"not {np.broadcast_to(wanted, held.shape)[row, wrong]}",
                field=f"rank {rank}, step {schedule.steps}",
            )


def _promises(schedule: Schedule) -> Iterator[tuple[int, IntArray, IntArray | None]]:
    """What each rank must hold at the end: chunks, and whose part of each alone; None: all."""
    ranks, chunks = range(schedule.ranks), np.arange(schedule.chunks)
    match schedule.collective:
        case Collective.ALL_REDUCE:
            yield from ((rank, chunks, None) for rank in ranks)
        case Collective.REDUCE_SCATTER:
            yield from ((rank, np.flatnonzero(schedule.owner == rank), None) for rank in ranks)
        case Collective.ALL_GATHER:
            yield from ((rank, chunks, schedule.owner) for rank in ranks)
        case Collective.BROADCAST:
            yield from ((rank, chunks, np.full_like(chunks, ROOT)) for rank in ranks)
        case Collective.REDUCE:
            yield ROOT, chunks, None
        case Collective.ALLTOALL | Collective.ALLTOALLV | Collective.SENDRECV:
            target, fractions = schedule.target, schedule.fractions
            assert target is not None, "it names the target of each chunk"
            has_bytes = np.ones(len(chunks), dtype=np.bool_) if fractions is None else fractions > 0
            for rank in ranks:
                mine = np.flatnonzero((target == rank) & has_bytes)
                yield rank, mine, schedule.owner[mine]
