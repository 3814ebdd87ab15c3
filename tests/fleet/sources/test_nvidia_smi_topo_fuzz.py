from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.errors import SourceError
from fleet.sources import nvidia_smi_topo
from fleet.wiring import EndKind
from tests.contracts import assert_honest
from tests.fleet.sources.nvidia_smi_texts import HOST, levels, links, mesh, read_matrix, text_of

CELLS = st.sampled_from(["NV1", "NV2", "NV4", "NV12", "NV18", "PIX", "PXB", "PHB", "NODE", "SYS"])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), gpus=st.integers(1, 6))
def test_any_symmetric_matrix_comes_back_as_it_was(data: st.DataObject, gpus: int) -> None:
    rows = mesh(gpus, "SYS")
    for a in range(gpus):
        for b in range(a + 1, gpus):
            rows[1 + a][1 + b] = rows[1 + b][1 + a] = data.draw(CELLS)
    snapshot = read_matrix(text_of(rows))
    level = levels(snapshot)
    is_switched = any(p.end.kind is EndKind.SWITCH for g in snapshot.wiring.gpus for p in g.ports)
    for a in range(gpus):
        counts = {b: int(c[2:]) for b, c in enumerate(rows[1 + a][1:-1]) if c.startswith("NV")}
        if is_switched and counts:
            assert links(snapshot, a) == (("switch", max(counts.values())),)
        else:
            assert dict(links(snapshot, a)) == {f"gpu{b}": n for b, n in counts.items()}
            assert len(counts) < 2 or sum(counts.values()) <= 18
        for b in range(a + 1, gpus):
            cell = rows[1 + a][1 + b].lower()
            assert level.get(f"gpu{a}-gpu{b}") == (None if cell.startswith("nv") else cell)


NOISE = st.sampled_from(
    [
        "X",
        "NV18",
        "SOC",
        "N/A",
        "\t",
        "\n",
        " ",
        "GPU0",
        "GPU9999",
        "NIC0: x",
        "\x1b[4m",
        "0-31",
        "€",
        "0",
    ]
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_damage_makes_more_than_a_source_error(root: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["dgx-h100-01", "l40s-8"]))
    content = (root / "samples/captures" / name / "nvidia-smi-topo-m.txt").read_bytes()
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content)))
        gone = data.draw(st.sampled_from([0, 0, 1, 4, 60, 400]))
        noise = data.draw(st.one_of(NOISE.map(str.encode), st.binary(max_size=5)))
        content = content[:at] + noise + content[at + gone :]
    nvidia_smi_topo.recognises(content.decode("utf-8", "replace"))
    try:
        (snapshot,) = nvidia_smi_topo.read(content, where="topo.txt", host=HOST)
    except SourceError:
        return
    assert_honest(snapshot)


@settings(max_examples=100, deadline=None)
@given(text=st.lists(st.one_of(NOISE, CELLS, st.just("GPU1"), st.just("mlx5_0")), max_size=40))
def test_words_of_the_grammar_in_any_order_do_no_harm(text: list[str]) -> None:
    try:
        read_matrix(" ".join(text))
    except SourceError as error:
        found = str(error)
        assert found.startswith("topo.txt: ") or pytest.fail(found)
