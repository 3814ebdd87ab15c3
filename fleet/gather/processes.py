"""Processes: one command with a deadline and a bound on what it may say. Never waits for ever."""

import asyncio
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

LARGEST_STDERR_BYTES: Final = 16 * 1024
_TERM_GRACE_S: Final = 1.0
_KILL_GRACE_S: Final = 0.5
_PIPES_GRACE_S: Final = 0.5
_DESCRIPTORS_EACH: Final = 4
_DESCRIPTORS_OURS: Final = 64


class Ending(StrEnum):
    """How a command ended, as its caller sees it."""

    EXITED = "exited"
    WHOLE = "whole"
    TIMED_OUT = "timed_out"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that was run: ``exit_code`` None where it was stopped or let go."""

    ending: Ending
    exit_code: int | None
    stdout: bytes
    stderr: bytes


class _Talk(asyncio.SubprocessProtocol):
    """Takes in what a process says until it ends, says enough, or says too much."""

    def __init__(self, limit_bytes: int, is_whole: Callable[[bytearray], bool]) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.exited = asyncio.Event()
        self._limit_bytes = limit_bytes
        self._is_whole = is_whole

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep it; of stderr the last part."""
        if fd == 2:
            self.stderr += data
            del self.stderr[:-LARGEST_STDERR_BYTES]
            return
        self.stdout += data
        if len(self.stdout) > self._limit_bytes:
            self._end(Ending.TOO_LARGE)
        elif data.endswith(b"\n") and self._is_whole(self.stdout):
            self._end_soon(Ending.WHOLE)

    def process_exited(self) -> None:
        """It is gone; others may hold its pipes open, and are not waited for."""
        self.exited.set()
        self._end_soon(Ending.EXITED)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone and its pipes are closed."""
        self._end(Ending.EXITED)

    def _end_soon(self, ending: Ending) -> None:
        asyncio.get_running_loop().call_later(_PIPES_GRACE_S, self._end, ending)

    def _end(self, ending: Ending) -> None:
        if not self.ended.done():
            self.ended.set_result(ending)


async def run(
    argv: Sequence[str],
    *,
    stdin: bytes,
    deadline_s: float,
    limit_bytes: int,
    is_whole: Callable[[bytearray], bool],
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Run a command in a session of its own; at its deadline its whole group is killed.

    A command that has said all (``is_whole``) and does not end is let go.

    Raises:
        OSError: it cannot be started.
    """
    loop = asyncio.get_running_loop()
    transport, talk = await loop.subprocess_exec(
        lambda: _Talk(limit_bytes, is_whole), *argv, start_new_session=True, env=environment
    )
    try:
        _say(transport, stdin)
        ending = await _until(talk, deadline_s)
        return Ran(ending, transport.get_returncode(), bytes(talk.stdout), bytes(talk.stderr))
    finally:
        await asyncio.shield(_stopped(transport, talk))


def _say(transport: asyncio.SubprocessTransport, stdin: bytes) -> None:
    pipe = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
    pipe.write(stdin)
    pipe.write_eof()


async def _until(talk: _Talk, deadline_s: float) -> Ending:
    done, _ = await asyncio.wait({talk.ended}, timeout=deadline_s)
    return talk.ended.result() if done else Ending.TIMED_OUT


async def _stopped(transport: asyncio.SubprocessTransport, talk: _Talk) -> None:
    """End the process and its group: asked first, so that srun gives its allocation back."""
    if not talk.exited.is_set():
        _signal_group(transport.get_pid(), signal.SIGTERM)
        await _gone(talk, _TERM_GRACE_S)
        _signal_group(transport.get_pid(), signal.SIGKILL)  # its children may have stayed
        await _gone(talk, _KILL_GRACE_S)
    transport.close()


async def _gone(talk: _Talk, grace_s: float) -> None:
    try:
        await asyncio.wait_for(talk.exited.wait(), grace_s)
    except TimeoutError:
        return


def _signal_group(pid: int, sign: signal.Signals) -> None:
    try:
        os.killpg(pid, sign)
    except ProcessLookupError:
        return


def allow_descriptors(parallel: int) -> None:
    """Raise the soft limit of open files to what so many commands at once need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = parallel * _DESCRIPTORS_EACH + _DESCRIPTORS_OURS
    if soft < wanted:
        new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, new), hard))
