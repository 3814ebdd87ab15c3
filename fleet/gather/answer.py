"""Answers: the far side's output to a reading, and a document to a snapshot. Nothing is trusted.

The reading stands on one marked line among what a login shell may print. Where the far side had
no python3, nvidia-smi's output stands between marked lines; the mark is drawn anew for each sweep,
so that no process name or message of the day can forge one.
"""

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from fleet.errors import ExpectedError, FleetError, NothingCollectedError
from fleet.gather.outcome import AnswerError, FailureReason, too_large
from fleet.model import SCHEMA_VERSION, NodeSnapshot
from fleet.reading import LARGEST_READING_BYTES, StopReason, reading_from_bytes
from fleet.sources.reading import snapshot_from_reading
from fleet.store import document_from_bytes

READING_MARK: Final = b"@fleetmap-reading "
PROBE: Final = "nvidia-smi through sh"
_HEAD_BYTES: Final = 1 << 16
_KIND: Final = re.compile(rb'"kind"\s*:\s*"(\w{1,64})"')
_SCHEMA: Final = re.compile(rb'"schema_version"\s*:\s*([0-9]{1,9})\b')


def is_whole(output: bytearray, mark: str) -> bool:
    """Whether the last line says that the far side is done, so that no more need be waited for."""
    start = output.rfind(b"\n", 0, len(output) - 1) + 1
    return output.find(READING_MARK, start) >= 0 or output.startswith(f"{mark} end".encode(), start)


def document_from_output(output: bytes, *, mark: str, waited_s: float) -> bytes:
    """The reading, as JSON, that a far side printed; ``waited_s`` is told where it was cut. [s]

    Raises:
        AnswerError: there is none, or it is cut, too large or no reading.
    """
    at = output.rfind(READING_MARK)
    if at >= 0:
        return _unpacked(output[at + len(READING_MARK) :])
    return _reading_of_outputs(output, mark, waited_s)


def snapshot_from_document(content: bytes) -> NodeSnapshot:
    """The snapshot in a document, a reading or a snapshot, as its ``kind`` says.

    Raises:
        AnswerError: it is neither, of a newer schema, too large, or a field is wrong.
    """
    if len(content) > LARGEST_READING_BYTES:
        raise too_large()
    kind = _kind(content)
    try:
        return _interpreted(content, kind)
    except NothingCollectedError as error:
        raise AnswerError(FailureReason.NO_ANSWER, _without_where(error)) from None
    except ExpectedError as error:
        raise AnswerError(FailureReason.GARBAGE, _without_where(error)) from None


def _interpreted(content: bytes, kind: str) -> NodeSnapshot:
    if kind == "node_reading":
        return snapshot_from_reading(reading_from_bytes(content, where="answer"))
    document = document_from_bytes(content, where="answer")
    if not isinstance(document, NodeSnapshot):
        raise FleetError("not one node's document")
    return document


def _kind(content: bytes) -> str:
    """What a document says it is, from its head alone."""
    head = content[:_HEAD_BYTES]
    kind, version = _KIND.search(head), _SCHEMA.search(head)
    if kind is None or kind[1] not in (b"node_reading", b"node_snapshot"):
        what = f"kind is {kind[1].decode()}" if kind else "no kind"
        raise AnswerError(FailureReason.GARBAGE, f"no reading or snapshot of ours: {what}")
    if version is not None and int(version[1]) > SCHEMA_VERSION:
        told = f"schema_version {int(version[1])}; this fleetmap reads {SCHEMA_VERSION}"
        raise AnswerError(FailureReason.WRONG_SCHEMA, told)
    return kind[1].decode()


def _without_where(error: ExpectedError) -> str:
    return ": ".join(part for part in (error.field, error.problem) if part)


def _unpacked(rest: bytes) -> bytes:
    line, newline, _ = rest.partition(b"\n")
    if not newline:
        raise AnswerError(FailureReason.GARBAGE, "the reading is cut")
    unpacker = zlib.decompressobj()
    try:
        packed = base64.b64decode(line.strip(), validate=True)
        content = unpacker.decompress(packed, LARGEST_READING_BYTES + 1)
    except (binascii.Error, zlib.error) as error:
        raise AnswerError(FailureReason.GARBAGE, f"the reading is damaged ({error})") from None
    if len(content) > LARGEST_READING_BYTES:
        raise too_large()
    if not unpacker.eof:
        raise AnswerError(FailureReason.GARBAGE, "the reading is cut")
    return content


@dataclass(slots=True)
class _Framed:
    """What the marked lines frame, as far as it came."""

    told: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    unfinished: str | None = None


def _reading_of_outputs(output: bytes, mark: str, waited_s: float) -> bytes:
    framed = _framed(output.decode("utf-8", "replace"), mark)
    python = framed.told.get("python", "0")
    if "nothing" in framed.told:
        if python != "0":
            raise AnswerError(FailureReason.DIED, f"the probe ended with exit status {python}")
        raise AnswerError(FailureReason.NO_COLLECTOR, "neither python3 nor nvidia-smi there")
    if "host" not in framed.told or not framed.outputs:
        raise AnswerError(FailureReason.NO_ANSWER, "no reading in its output")
    reading = {
        "kind": "node_reading",
        "schema_version": SCHEMA_VERSION,
        "host": framed.told["host"],
        "probe": PROBE if python == "0" else f"{PROBE} (python3: exit status {python})",
        "collected_at": _times(framed),
        "outputs": framed.outputs,
        "stops": list(_stops(framed, waited_s)),
    }
    return json.dumps(reading).encode()


def _times(framed: _Framed) -> dict[str, str]:
    """One time for both: nvidia-smi is how the driver was asked."""
    return {part: framed.told["at"] for part in ("driver", "outputs") if "at" in framed.told}


def _stops(framed: _Framed, waited_s: float) -> Iterator[dict[str, Any]]:
    if framed.unfinished is not None:
        yield {
            "chapter": "outputs",
            "at": framed.unfinished,
            "reason": StopReason.TIMED_OUT,
            "waited_s": waited_s,
        }


def _framed(text: str, mark: str) -> _Framed:
    """The frames in an output; a command that did not end is told, its part is not used."""
    framed = _Framed()
    lines: list[str] = []
    for line in text.split("\n"):
        if not line.startswith(mark):
            lines.append(line)
            continue
        word, _, rest = line[len(mark) :].strip().partition(" ")
        if word == "exit" and framed.unfinished is not None and rest.isdecimal():
            printed = "\n".join(lines).removesuffix("\n") + "\n"
            framed.outputs[framed.unfinished] = {"text": printed, "exit_code": int(rest[:4])}
            framed.unfinished = None
        elif word == "output":
            framed.unfinished = rest
        else:
            framed.told[word] = rest
        lines = []
    return framed
