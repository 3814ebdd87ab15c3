import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.errors import SourceError
from fleet.sources import nvidia_smi
from tests.contracts import assert_honest
from tests.fleet.sources.nvidia_smi_texts import (
    HOST,
    document,
    fabric,
    gpu,
    process,
    read_xml,
)

WORDS = st.sampled_from(
    [
        "N/A",
        "",
        "0",
        "-1",
        "None",
        "GPU is lost",
        "Unknown Error",
        "1e999 MiB",
        "4294967296",
        "€" * 9,
    ]
)


TEXT = re.compile(rb">[^<>]+<")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_damage_makes_more_than_a_source_error(root: Path, data: st.DataObject) -> None:
    whole = (root / "samples/captures/dgx-h100-01/nvidia-smi-q.xml").read_bytes()
    parts = whole.split(b"\t<gpu ")
    content = b"\t<gpu ".join(parts[:3]) + b"</nvidia_smi_log>"
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["text", "cut", "bytes", "twice"]))
        at = data.draw(st.integers(0, len(content)))
        if kind == "text":
            word = data.draw(WORDS).encode()
            match = TEXT.search(content, at)
            if match is not None:
                content = content[: match.start()] + b">" + word + b"<" + content[match.end() :]
        elif kind == "cut":
            content = content[:at] + content[at + data.draw(st.integers(0, 300)) :]
        elif kind == "bytes":
            content = content[:at] + data.draw(st.binary(max_size=6)) + content[at:]
        else:
            content = content[:at] + content[max(0, at - 400) :]
    try:
        (snapshot,) = nvidia_smi.read(content, where="q.xml", host=HOST)
    except SourceError:
        return
    assert_honest(snapshot)


@settings(max_examples=100, deadline=None)
@given(words=st.lists(WORDS, min_size=12, max_size=12))
def test_no_text_in_any_field_breaks_the_contract(words: list[str]) -> None:
    tags = ("product_name", "uuid", "serial", "vbios_version", "gpu_module_id", "compute_cap")
    inner = "".join(f"<{tag}>{word}</{tag}>" for tag, word in zip(tags, words, strict=False))
    inner += fabric(words[6], words[7], words[8], words[9])
    inner += f"<processes>{process(words[10], 'C', words[11])}</processes>"
    read_xml(document(gpu(inner), gpu(inner)))
