import base64
import json
import re
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.gather.answer import READING_MARK, document_from_output, is_whole, snapshot_from_document
from fleet.gather.outcome import AnswerError, FailureReason
from fleet.model import NodeSnapshot
from fleet.reading import LARGEST_READING_BYTES, reading_from_bytes
from fleet.store import bytes_from_document
from tests.factories import make_fleet
from tests.fleet.gather.far import MARK, NOW, packed_reading, reading, snapshot_bytes

FRAMES = f"""
{MARK} python 0
{MARK} host gpu7
{MARK} at 2031-05-06T07:08:09Z
{MARK} output nvidia-smi -q -x
<xml/>

{MARK} exit 0
{MARK} output nvidia-smi topo -m
GPU0 X

{MARK} exit 9
{MARK} end
"""


def document(output: bytes) -> dict[str, Any]:
    """The document in an output, as plain JSON."""
    found = json.loads(document_from_output(output, mark=MARK, waited_s=20))
    assert isinstance(found, dict)
    return found


def refusal(output: bytes) -> tuple[FailureReason, str]:
    """Why an output is refused."""
    with pytest.raises(AnswerError) as caught:
        document_from_output(output, mark=MARK, waited_s=20)
    return caught.value.reason, caught.value.detail


def garbage(content: bytes) -> tuple[FailureReason, str]:
    """Why a document is refused."""
    with pytest.raises(AnswerError) as caught:
        snapshot_from_document(content)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize(
    "before", [b"", b"Welcome!\n\x1b[31m*** rack 7 ***\n", b"prompt> ", b"\xff\n"]
)
@pytest.mark.parametrize("after", [b"", b"logout\nbye\n"])
def test_the_marked_line_is_found_among_a_login_shell_s_words(before: bytes, after: bytes) -> None:
    assert document(before + packed_reading("gpu1") + after)["host"] == "gpu1"


def test_of_two_marked_lines_the_last_counts() -> None:
    assert document(packed_reading("old") + packed_reading("new"))["host"] == "new"


def test_a_terminal_s_line_ends_do_no_harm() -> None:
    assert document(packed_reading("gpu1").replace(b"\n", b"\r\n"))["host"] == "gpu1"


def bomb() -> bytes:
    """Few bytes that unpack to more than a reading may be."""
    return (
        READING_MARK + base64.b64encode(zlib.compress(b" " * (LARGEST_READING_BYTES + 9))) + b"\n"
    )


@pytest.mark.parametrize(
    ("output", "reason", "detail"),
    [
        (b"", FailureReason.NO_ANSWER, "no reading in its output"),
        (b"Welcome!\n", FailureReason.NO_ANSWER, "no reading"),
        (packed_reading()[:200], FailureReason.GARBAGE, "the reading is cut"),
        (packed_reading()[:200] + b"\n", FailureReason.GARBAGE, "damaged|cut"),
        (READING_MARK + b"!!!\n", FailureReason.GARBAGE, "the reading is damaged"),
        (READING_MARK + b"AAAA\n", FailureReason.GARBAGE, "the reading is damaged"),
        (READING_MARK + b"\n", FailureReason.GARBAGE, "the reading is cut"),
        (bomb(), FailureReason.TOO_LARGE, "more than 32 MiB"),
        (
            f"{MARK} nothing\n".encode(),
            FailureReason.NO_COLLECTOR,
            "neither python3 nor nvidia-smi",
        ),
        (f"{MARK} python 9\n{MARK} nothing\n".encode(), FailureReason.DIED, "exit status 9"),
        (FRAMES.replace(MARK, "@fleetmap-4567").encode(), FailureReason.NO_ANSWER, "no reading"),
        (FRAMES.partition(f"{MARK} exit")[0].encode(), FailureReason.NO_ANSWER, "no reading"),
    ],
)
def test_what_is_no_answer_says_why(output: bytes, reason: FailureReason, detail: str) -> None:
    told = refusal(output)
    assert told[0] is reason
    assert re.search(detail, told[1])


def test_framed_outputs_become_a_reading() -> None:
    content = document_from_output(FRAMES.encode(), mark=MARK, waited_s=20)
    read = reading_from_bytes(content, where="gpu7")
    assert read.host == "gpu7"
    assert read.probe == "nvidia-smi through sh"
    assert read.collected_at.outputs == read.collected_at.driver == NOW
    assert {name: (o.text, o.exit_code) for name, o in read.outputs.items()} == {
        "nvidia-smi -q -x": ("<xml/>\n", 0),
        "nvidia-smi topo -m": ("GPU0 X\n", 9),
    }
    assert read.stops == ()


def test_a_command_that_hung_is_a_stop_and_costs_only_itself() -> None:
    content = document_from_output(FRAMES.partition("GPU0")[0].encode(), mark=MARK, waited_s=20)
    read = reading_from_bytes(content, where="gpu7")
    assert list(read.outputs) == ["nvidia-smi -q -x"]
    assert [(stop.at, stop.reason, stop.waited_s) for stop in read.stops] == [
        ("nvidia-smi topo -m", "timed_out", 20)
    ]


def test_a_probe_that_failed_before_nvidia_smi_was_asked_is_told() -> None:
    content = document(FRAMES.replace("python 0", "python 1").encode())
    assert content["probe"] == "nvidia-smi through sh (python3: exit status 1)"


@pytest.mark.parametrize(
    ("output", "whole"),
    [
        (packed_reading(), True),
        (b"hi" + packed_reading(), True),
        (packed_reading() + b"bye\n", False),
        (FRAMES.encode(), True),
        (FRAMES.partition(f"{MARK} end")[0].encode(), False),
        (b"\n", False),
    ],
)
def test_the_last_line_tells_that_all_is_said(output: bytes, whole: bool) -> None:
    assert is_whole(bytearray(output), MARK) is whole


def test_a_snapshot_is_taken_as_it_is() -> None:
    assert snapshot_from_document(snapshot_bytes("gpu1")).host == "gpu1"


def test_a_reading_is_interpreted() -> None:
    found = snapshot_from_document(json.dumps(reading("gpu1")).encode())
    assert (found.host, len(found.gpus)) == ("gpu1", 8)


DEEP = b'{"kind":"node_reading","schema_version":1,"host":"a","answers":{"x":{"value":'


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        (b"", FailureReason.GARBAGE, "no kind"),
        (b"[]", FailureReason.GARBAGE, "no kind"),
        (b"<html>", FailureReason.GARBAGE, "no kind"),
        (b'{"kind":"node_reading"', FailureReason.GARBAGE, "Invalid JSON"),
        (b'{"kind":"node_reading","kind":"node_snapshot"}', FailureReason.GARBAGE, "kind"),
        (bytes_from_document(make_fleet()), FailureReason.GARBAGE, "kind is fleet_map"),
        (json.dumps(reading("a/b")).encode(), FailureReason.GARBAGE, "host: String should match"),
        (json.dumps(reading("..")).encode(), FailureReason.GARBAGE, "host: String should match"),
        (json.dumps(reading(extra=1)).encode(), FailureReason.GARBAGE, "extra: "),
        (json.dumps(reading(outputs={})).encode(), FailureReason.NO_ANSWER, ""),
        (DEEP + b"[" * 5000, FailureReason.GARBAGE, "recursion limit exceeded"),
        (snapshot_bytes("a").replace(b'"wiring"', b'"cabling"'), FailureReason.GARBAGE, "wiring"),
        (
            snapshot_bytes("a").replace(b'"schema_version":1', b'"schema_version":2'),
            FailureReason.WRONG_SCHEMA,
            "schema_version 2; this fleetmap reads 1",
        ),
        (
            json.dumps(reading(schema_version=7)).encode(),
            FailureReason.WRONG_SCHEMA,
            "schema_version 7; this fleetmap reads 1",
        ),
    ],
)
def test_a_document_that_is_none_of_ours_says_why(
    content: bytes, reason: FailureReason, detail: str
) -> None:
    told = garbage(content)
    assert told[0] is reason
    assert detail in told[1]


def test_a_document_beyond_any_node_is_refused_unread() -> None:
    content = snapshot_bytes("a") + b" " * LARGEST_READING_BYTES
    assert garbage(content) == (FailureReason.TOO_LARGE, "more than 32 MiB")


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", READING_MARK, f"{MARK} host ".encode()]))
def test_any_output_is_an_answer_or_a_reason(noise: bytes, mark: bytes) -> None:
    is_whole(bytearray(noise + mark + noise), MARK)
    try:
        content = document_from_output(noise + mark + noise + b"\n", mark=MARK, waited_s=1)
    except AnswerError as error:
        assert error.detail.isprintable()  # noqa: PT017
    else:
        assert isinstance(content, bytes)


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4)
    ),
    max_leaves=12,
)
CALLS = st.sampled_from(
    ["nvmlInit()", "nvmlDeviceGetCount()", "nvmlDeviceGetUUID(0)", "field(0,165,1)", "x"]
)
READINGS = st.fixed_dictionaries(
    {"kind": st.just("node_reading"), "schema_version": st.just(1), "host": st.just("gpu1")},
    optional={
        "answers": st.dictionaries(
            CALLS,
            st.fixed_dictionaries({}, optional={"value": PARTS, "code": st.integers(-2, 999)}),
            max_size=5,
        ),
        "files": st.dictionaries(
            st.text(min_size=1, max_size=40), st.text(max_size=40), max_size=4
        ),
        "links": st.dictionaries(
            st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40), max_size=4
        ),
        "outputs": st.dictionaries(
            st.sampled_from(["nvidia-smi -q -x", "nvidia-smi topo -m", "x"]),
            st.fixed_dictionaries({"text": st.text(max_size=60)}),
            max_size=3,
        ),
        "stops": PARTS,
    },
)


@settings(deadline=None)
@given(READINGS)
def test_any_reading_costs_its_host_at_most(wild: dict[str, Any]) -> None:
    with suppress(AnswerError):
        assert isinstance(snapshot_from_document(json.dumps(wild).encode()), NodeSnapshot)
