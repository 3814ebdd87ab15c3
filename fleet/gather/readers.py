"""Readers: answers become snapshots in processes of their own, on all cores.

To understand an answer of eight GPUs takes 50 ms of a core, all else about a host 5 ms. An answer
that breaks its reader, or keeps it busy for ever, costs its host and no other.
"""

import json
import os
import queue
import resource
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import IO, Final, Self

from fleet.gather.answer import snapshot_from_document
from fleet.gather.outcome import AnswerError, FailureReason
from fleet.model import NodeSnapshot
from fleet.store import bytes_from_document

LONGEST_READ_S: Final = 60.0
LARGEST_READER_BYTES: Final = 8 * 2**30
"""Address space of a reader: an answer of 32 MiB becomes some hundred."""

HOSTS_PER_READER: Final = 50
"""A reader takes half a second to start, which so many hosts repay."""

_LENGTH_BYTES: Final = 8
_GOOD, _BAD = b"+", b"-"
_PROGRAM: Final = (
    "import sys; sys.path[:] = {path!r}; from fleet.gather.readers import serve; serve()"
)


class ReaderGoneError(Exception):
    """A reading process ended or fell silent in the middle of an answer."""


class Readers:
    """So many reading processes; with none, answers are understood in the calling thread."""

    def __init__(self, count: int) -> None:
        self.threads = max(1, count)
        self._all = [_Reader() for _ in range(count)]
        self._idle: queue.SimpleQueue[_Reader | None] = queue.SimpleQueue()
        for reader in self._all:
            self._idle.put(reader)
        if not count:
            self._idle.put(None)

    def snapshot(self, document: bytes) -> NodeSnapshot:
        """The snapshot in a document.

        Raises:
            AnswerError: it is none, or it breaks its reader.
        """
        reader = self._idle.get()
        try:
            return reader.snapshot(document) if reader else snapshot_from_document(document)
        finally:
            self._idle.put(reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for reader in self._all:
            reader.stop()


def readers_for(host_count: int) -> Readers:
    """As many readers as cores, where there are hosts enough to repay them."""
    return Readers(min(len(os.sched_getaffinity(0)), host_count // HOSTS_PER_READER))


class _Reader:
    """One reading process, started when first needed and again after it broke."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def snapshot(self, document: bytes) -> NodeSnapshot:
        try:
            told = self._asked(document)
        except (ReaderGoneError, OSError) as error:
            self.stop()
            raise AnswerError(FailureReason.GARBAGE, f"its reader broke ({error})") from None
        if told[:1] == _GOOD:
            return NodeSnapshot.model_validate_json(told[1:])
        reason, detail = json.loads(told[1:])
        raise AnswerError(FailureReason(reason), detail)

    def stop(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()
        process.wait()

    def _asked(self, document: bytes) -> bytes:
        process = self._process = self._process or _started()
        assert process.stdin is not None
        assert process.stdout is not None
        _write(process.stdin, document)
        until = time.monotonic() + LONGEST_READ_S
        length = _read_until(process.stdout, _LENGTH_BYTES, until)
        return _read_until(process.stdout, int.from_bytes(length), until)


def serve() -> None:
    """Be a reader: understand one document after another until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides
    resource.setrlimit(resource.RLIMIT_AS, (LARGEST_READER_BYTES, LARGEST_READER_BYTES))
    while length := sys.stdin.buffer.read(_LENGTH_BYTES):
        _write(sys.stdout.buffer, _told(sys.stdin.buffer.read(int.from_bytes(length))))


def _told(document: bytes) -> bytes:
    try:
        return _GOOD + bytes_from_document(snapshot_from_document(document))
    except AnswerError as error:
        return _BAD + json.dumps([error.reason, error.detail]).encode()
    except Exception as error:  # whatever a host says may cost that host, and no other
        told = f"cannot be understood ({type(error).__name__}: {error})"
        return _BAD + json.dumps([FailureReason.GARBAGE, told]).encode()


def _started() -> subprocess.Popen[bytes]:
    program = _PROGRAM.format(path=[os.path.abspath(place) for place in sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(len(data).to_bytes(_LENGTH_BYTES) + data)
    pipe.flush()


def _read_until(pipe: IO[bytes], count: int, until: float) -> bytes:
    """So many bytes of a pipe.

    Raises:
        ReaderGoneError: it ended, or they did not come in time.
    """
    data = bytearray()
    while len(data) < count:
        left_s = max(0.0, until - time.monotonic())
        if not _is_readable(pipe, left_s):
            raise ReaderGoneError(f"not understood within {LONGEST_READ_S:g} s")
        part = os.read(pipe.fileno(), count - len(data))
        if not part:
            raise ReaderGoneError("it ended")
        data += part
    return bytes(data)


def _is_readable(pipe: IO[bytes], wait_s: float) -> bool:
    waiting = select.poll()  # select itself fails beyond 1,024 open files
    waiting.register(pipe, select.POLLIN)
    return bool(waiting.poll(wait_s * 1000))
