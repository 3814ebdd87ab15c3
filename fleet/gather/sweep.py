"""Sweep: asks many hosts at once, and makes one map of what they say. One bad host costs itself.

Understanding an answer takes the processor, so it happens beside the network; a host's deadline
does not run while its answer waits there.
"""

import asyncio
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from fleet.faults import DeviceFault, device_faults
from fleet.gather.keep import Keep
from fleet.gather.outcome import (
    Answer,
    AnswerError,
    Collected,
    FailureReason,
    HostFailure,
    Transport,
)
from fleet.gather.processes import allow_descriptors
from fleet.gather.readers import Readers, readers_for
from fleet.merge import merge_snapshots
from fleet.model import FleetMap, NodeSnapshot
from fleet.units import text_from_seconds
from fleet.wiring import Wiring

Outcome = Collected | HostFailure
T = TypeVar("T")

_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Gathering:
    """What a sweep brought home. ``asked`` in order; a stale host is collected and a failure."""

    asked: tuple[str, ...]
    collected: tuple[Collected, ...]
    failures: tuple[HostFailure, ...]
    fleet: FleetMap

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all came back."""
        return not self.collected

    @property
    def faults(self) -> tuple[tuple[str, DeviceFault], ...]:
        """Devices that do not answer, with the name of their node."""
        return tuple(
            (node.host, fault) for node in self.fleet.nodes for fault in device_faults(node)
        )

    @property
    def is_partial(self) -> bool:
        """Whether a host or a device is missing, or too old."""
        return bool(self.failures or self.faults)


@dataclass(slots=True)
class _Understanding:
    """Makes snapshots of answers. Nodes that are wired alike share one wiring in memory."""

    readers: Readers
    keep: Keep | None
    wirings: dict[str, Wiring] = field(default_factory=dict)

    def outcome(self, answer: Answer) -> Outcome:
        """The snapshot in an answer, kept, or why there is none."""
        try:
            document = answer.document()
            snapshot = self.readers.snapshot(document)
        except AnswerError as error:
            return error.failure(answer.host)
        except Exception as error:  # whatever a host says may cost that host, and no other
            told = f"cannot be understood ({type(error).__name__}: {error})"
            return AnswerError(FailureReason.GARBAGE, told).failure(answer.host)
        if self.keep is not None:
            self.keep.write(answer.host, document)
        return Collected(answer.host, self._shared(snapshot))

    def kept(self, host: str) -> Collected | None:
        """What an earlier sweep kept of a host, None where that is nothing or cannot be used."""
        content = self.keep.read(host) if self.keep is not None else None
        if content is None:
            return None
        try:
            return Collected(host, self._shared(self.readers.snapshot(content)))
        except Exception:  # then it is asked for anew
            return None

    def _shared(self, snapshot: NodeSnapshot) -> NodeSnapshot:
        key = snapshot.wiring.model_dump_json()
        wiring = self.wirings.setdefault(key, snapshot.wiring)
        return snapshot.model_copy(update={"wiring": wiring})


@dataclass(frozen=True, slots=True)
class _Sweep:
    """Who is asked, and what is done with what they say."""

    transport: Transport
    understanding: _Understanding
    resume: bool
    on_outcome: Callable[[Outcome], None]
    beside: ThreadPoolExecutor
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    async def run(self, parallel: int) -> dict[str, Outcome]:
        """Ask with so many askers; each takes the next host when it is done with one."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(parallel))  # names are resolved there
        waiting = iter(self.transport.hosts)
        try:
            async with asyncio.TaskGroup() as askers:
                for _ in range(min(parallel, len(self.transport.hosts))):
                    askers.create_task(self._asker(waiting))
        finally:
            self.beside.shutdown(wait=False, cancel_futures=True)
        return self.outcomes

    async def _asker(self, waiting: Iterator[str]) -> None:
        for host in waiting:
            outcome = await self._outcome(host)
            self.outcomes[host] = outcome
            self.on_outcome(outcome)

    async def _outcome(self, host: str) -> Outcome:
        loop = asyncio.get_running_loop()
        if self.resume:
            found = await loop.run_in_executor(self.beside, self.understanding.kept, host)
            if found is not None:
                return found
        answer = await self.transport.ask(host)
        if isinstance(answer, HostFailure):
            return answer
        return await loop.run_in_executor(self.beside, self.understanding.outcome, answer)


def gather_fleet(
    transport: Transport,
    *,
    parallel: int = 64,
    keep: Keep | None = None,
    resume: bool = False,
    max_age_s: float | None = None,
    now: datetime | None = None,
    on_outcome: Callable[[Outcome], None] = lambda outcome: None,
) -> Gathering:
    """Ask every host of a transport, ``parallel`` at a time, and merge what they say.

    With ``keep`` each answer is written as it comes; with ``resume`` hosts that are kept already
    are not asked. Answers older than ``max_age_s`` are told as stale, and are in the map. [s]

    Raises:
        StoreError: an answer cannot be kept.
        KeyboardInterrupt: the sweep was interrupted; its processes are gone.
    """
    allow_descriptors(parallel)
    readers = readers_for(len(transport.hosts))
    with ThreadPoolExecutor(readers.threads) as beside, readers:
        understanding = _Understanding(readers, keep)
        sweep = _Sweep(transport, understanding, resume, on_outcome, beside)
        outcomes = _run(sweep.run(parallel))
    return gathering_from_outcomes(
        transport.hosts, outcomes, max_age_s=max_age_s, now=now or datetime.now(UTC)
    )


def gathering_from_outcomes(
    asked: Sequence[str],
    outcomes: dict[str, Outcome],
    *,
    max_age_s: float | None,
    now: datetime,
) -> Gathering:
    """One map from the outcomes of all hosts, in the order in which they were asked. [s]"""
    answered = [o for host in asked if isinstance(o := outcomes[host], Collected)]
    collected, impostors = settle_names(answered, asked)
    failures = [o for host in asked if isinstance(o := outcomes[host], HostFailure)]
    stale = () if max_age_s is None else tuple(_stale(collected, max_age_s, now))
    place = {host: i for i, host in enumerate(asked)}
    return Gathering(
        asked=tuple(asked),
        collected=collected,
        failures=tuple(sorted((*failures, *impostors, *stale), key=lambda f: place[f.host])),
        fleet=merge_snapshots(one.snapshot for one in collected),
    )


def settle_names(
    collected: Sequence[Collected], asked: Iterable[str]
) -> tuple[tuple[Collected, ...], tuple[HostFailure, ...]]:
    """Each node's name to one host; the others, and who bears another's name, are failures.

    A node is named as it names itself (we may ask an address or an alias), with two bounds. The
    name of a host that was asked belongs to that host, though it be silent. Of several that bear
    one name otherwise, the newest is taken.
    """
    claims: dict[str, list[Collected]] = defaultdict(list)
    for one in collected:
        claims[one.snapshot.host].append(one)
    asked = frozenset(asked)
    taken: dict[str, Collected] = {}
    failures = []
    for name, claimants in claims.items():
        owner = _owner(name, claimants, asked)
        for one in claimants:
            if one is owner:
                taken[one.host] = one
            else:
                failures.append(_name_taken(one, name, owner))
    return tuple(one for one in collected if one.host in taken), tuple(failures)


def _owner(name: str, claimants: list[Collected], asked: frozenset[str]) -> Collected | None:
    if name in asked:
        return next((one for one in claimants if one.host == name), None)
    return max(claimants, key=lambda one: read_at(one.snapshot) or _LONG_AGO)


def _name_taken(one: Collected, name: str, owner: Collected | None) -> HostFailure:
    other = f"as {owner.host} does" if owner else "a host that was asked too and did not say so"
    return HostFailure(one.host, FailureReason.NAME_TAKEN, f"calls itself {name}, {other}")


def read_at(snapshot: NodeSnapshot) -> datetime | None:
    """When the newest part of a snapshot was read, None where it does not say."""
    times = [s.collected_at for s in snapshot.sections if s.collected_at is not None]
    return max(times, default=None)


def _stale(
    collected: Iterable[Collected], max_age_s: float, now: datetime
) -> Iterator[HostFailure]:
    limit = timedelta(seconds=max_age_s)
    for one in collected:
        at = read_at(one.snapshot)
        if at is None:
            detail = "does not say when it was read"
        elif at > now + limit:
            detail = f"read more than {text_from_seconds(max_age_s)} from now: a clock is wrong"
        elif at < now - limit:
            detail = f"older than {text_from_seconds(max_age_s)}"
        else:
            continue
        yield HostFailure(one.host, FailureReason.STALE, f"{detail}; still in the map")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, or until a signal says stop; then what runs is stopped first."""
    told: list[signal.Signals] = []
    try:
        return asyncio.run(_until_signalled(work, told))
    except asyncio.CancelledError:
        raise SystemExit(128 + told[0]) from None
    except ExceptionGroup as group:
        raise _first(group) from None


async def _until_signalled(work: Coroutine[Any, Any, T], told: list[signal.Signals]) -> T:
    task = asyncio.current_task()
    assert task is not None

    def stop(sign: signal.Signals) -> None:
        told.append(sign)
        task.cancel()

    if threading.current_thread() is threading.main_thread():
        for sign in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(sign) is not signal.SIG_IGN:  # as under nohup
                asyncio.get_running_loop().add_signal_handler(sign, stop, sign)
    return await work


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """The first of the exceptions that ended a sweep, which are all of our own making."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
