from pathlib import Path

import pytest

from fleet.errors import SourceError
from fleet.sources import nvidia_smi_topo
from fleet.wiring import LinkState
from tests.fleet.sources.nvidia_smi_texts import (
    levels,
    links,
    mesh,
    read_matrix,
    said,
    text_of,
    with_nics,
)


def test_among_all_real_files_only_this_kind_is_recognised(artifacts: Path) -> None:
    files = [path for path in artifacts.rglob("*") if path.is_file()]
    heads = {path: path.read_text("utf-8", "replace")[:65536] for path in files}
    known = [path for path in files if nvidia_smi_topo.recognises(heads[path])]
    assert {path.parent.name for path in known} == {"nvidia-smi-topo"}
    assert len(known) == len(list((artifacts / "nvidia-smi-topo").iterdir()))


def test_nics_are_named_by_their_legend_wherever_it_starts() -> None:
    legend = "\nNIC Legend:\n\n  NIC0: mlx5_2\n  NIC1: mlx5_bond_0\n"
    snapshot = read_matrix(text_of(with_nics(2, "NIC0", "NIC1")) + legend)
    assert [nic.ports[0].name for nic in snapshot.wiring.nics] == ["mlx5_2", "mlx5_bond_0"]
    assert {nic.ports[0].state for nic in snapshot.wiring.nics} == {LinkState.UNREPORTED}
    assert [nic.slot for nic in snapshot.nics] == [0, 1]


def test_nics_without_a_legend_have_no_name_and_a_reason() -> None:
    snapshot = read_matrix(text_of(with_nics(2, "NIC0", "NIC1")))
    assert [nic.ports[0].name for nic in snapshot.wiring.nics] == [None, None]
    for slot in (0, 1):
        assert said(snapshot, f"wiring.nics[{slot}].ports[1].name") == [
            ("undecodable", "a column without name, and no NIC legend")
        ]


def test_the_columns_fill_in_for_rows_of_nics_that_are_cut_off() -> None:
    rows = with_nics(2, "mlx5_0", "mlx5_2", "mlx5_1")
    whole = read_matrix(text_of(rows))
    one_row, none = read_matrix(text_of(rows[:4])), read_matrix(text_of(rows[:3]))
    assert levels(one_row) == {k: v for k, v in levels(whole).items() if k != "nic1-nic2"}
    assert said(one_row, "wiring.pcie_levels[nic1-nic2]") == [
        ("not_asked", "neither of the two rows is there")
    ]
    assert [nic.ports[0].name for nic in none.wiring.nics] == ["mlx5_0", "mlx5_2", "mlx5_1"]
    assert {k for k in levels(none) if k.startswith("nic")} == set()


def test_a_nics_row_may_end_in_the_middle() -> None:
    rows = with_nics(2, "mlx5_0", "mlx5_1", "mlx5_2")
    cut = text_of(rows[:5]).removesuffix("\t X \tPIX\t\t\t\n")
    assert cut.endswith("mlx5_1\tNODE\tNODE\tPIX")
    assert "nic1-nic2" not in levels(read_matrix(cut))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.expandtabs(8),
        lambda text: text.replace("\t", "    ", 20),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\n\n"),
        lambda text: "".join(f"# {line}\n" for line in text.splitlines()),
        lambda text: "".join(f"        {line}\n" for line in text.splitlines()),
        lambda text: text.replace("GPU0\t", "\x1b[4mGPU0\t", 1).replace("ID\n", "ID\x1b[0m\n", 1),
        lambda text: text.replace("NODE", "\x1b[31mNODE\x1b[0m"),
        lambda text: f"[root@box ~]# nvidia-smi topo -m\n{text}[root@box ~]# \nulimit soft: 1000\n",
        lambda text: "\ufeff" + text,
        lambda text: text + text,
        lambda text: "\t" + "".join(text.partition("\n")[0].split("\t")) + text[text.index("\n") :],
    ],
    ids=[
        *(
            "blanks",
            "mixed",
            "windows",
            "blank lines",
            "hash",
            "indented",
            "underlined",
            "coloured",
        ),
        *("shell", "byte order mark", "twice", "joined header"),
    ],
)
def test_the_same_matrix_in_other_clothes_is_the_same_node(root: Path, change: object) -> None:
    assert callable(change)
    for name in ("dgx-h100-01", "l40s-8"):
        text = (root / "samples/captures" / name / "nvidia-smi-topo-m.txt").read_text()
        assert nvidia_smi_topo.recognises(change(text))
        assert read_matrix(change(text)) == read_matrix(text)


def test_gpu_rows_alone_make_the_same_gpus() -> None:
    rows = with_nics(4, "NIC0", "NIC1")
    bare = "".join("\t".join(row) + "\n" for row in rows if row[0].startswith("GPU"))
    snapshot = read_matrix(bare)
    assert nvidia_smi_topo.recognises(bare)
    assert (len(snapshot.wiring.gpus), len(snapshot.wiring.nics)) == (4, 2)
    assert [gpu.numa for gpu in snapshot.wiring.gpus] == [0] * 4
    assert levels(snapshot)["gpu3-nic1"] == "node"


def test_a_second_matrix_of_pcie_levels_tells_what_nvlinks_hide() -> None:
    plain = mesh(8, "NODE")
    snapshot = read_matrix(text_of(mesh(8, "NV18")) + text_of(plain))
    assert links(snapshot, 0) == (("switch", 18),)
    assert set(levels(snapshot).values()) == {"node"}
    assert len(levels(snapshot)) == 28
    assert read_matrix(text_of(plain) + text_of(mesh(8, "NV18"))) == snapshot


def test_matrices_of_two_machines_are_refused_with_both_lines() -> None:
    both = text_of(mesh(2, "NV4")) + text_of(mesh(4, "SYS"))
    with pytest.raises(SourceError, match=r"topo\.txt: line 5: differs .* at line 2; give each"):
        read_matrix(both)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GPU 0: NVIDIA A10 (UUID: GPU-aaaaaaaa-0000-4000-8000-000000000001)\n\t Link 0: 25 GB/s\n",
        "\tGPU0\tGPU1\nGPU0\tX\tOK\nGPU1\tOK\tX\n\nLegend:\n  X = Self\n  OK = Status Ok\n",
        " \tGPU0\n GPU0\tX\t\n\nLegend:\n",
        "==============NVSMI LOG==============\nAttached GPUs : 4\nGPU 00000000:68:00.0\n",
        "       GPU0         GPU1\nGPU0   0            XGMI\nGPU1   XGMI         0\n",
        "NIC0\tPIX\tNODE\n",
        '{"header": "GPU0 GPU1 CPU Affinity"}',
        "\tGPU0\tGPU1\tCPU Affinity\n",
    ],
    ids=["empty", "nvlink -s", "p2p", "p2p of one", "-q", "rocm", "nics", "json", "header"],
)
def test_other_outputs_are_not_taken_for_a_matrix(text: str) -> None:
    assert not nvidia_smi_topo.recognises(text)
    with pytest.raises(SourceError, match="no matrix of GPUs"):
        read_matrix(text)


def test_a_matrix_cut_in_a_gpus_row_names_the_line(root: Path) -> None:
    text = (root / "samples/captures/dgx-h100-01/nvidia-smi-topo-m.txt").read_text()
    cut = text[: text.index("GPU5\t", text.index("\nGPU4")) + 30]
    with pytest.raises(SourceError, match=r"topo\.txt: line 7: GPU5 has \d cells under 18 columns"):
        read_matrix(cut)


def test_the_levels_of_a_matrix_are_those_of_its_mirror(root: Path) -> None:
    text = (root / "samples/captures/dgx-h100-01/nvidia-smi-topo-m.txt").read_text()
    rows = [line.split("\t") for line in text.splitlines()[:19]]
    cells = [row[1:19] for row in rows[1:]]
    mirror = [[cells[b][a] for b in range(18)] for a in range(18)]
    turned = [rows[0], *([row[0], *mirror[i], *row[19:]] for i, row in enumerate(rows[1:]))]
    legend = text[text.index("\nNIC Legend") :]
    assert read_matrix(text_of(turned) + legend) == read_matrix(text)
