import pytest

from fleet.errors import SourceError
from fleet.sources.nvidia_smi_matrix import Matrix, blocks_from_text, matrices_from_text

HEADER = "\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID"
GPU0 = "GPU0\t X \tNV4\tPIX\t0-31\t0\t\tN/A"
GPU1 = "GPU1\tNV4\t X \tNODE\t0-31\t0\t\tN/A"
NIC0 = "NIC0\tPIX\tNODE\t X \t\t\t\t"


def one(*lines: str) -> Matrix:
    (matrix,) = matrices_from_text("\n".join(lines), where="m.txt")
    return matrix


def test_cells_are_told_by_row_and_column() -> None:
    matrix = one(HEADER, GPU0, GPU1, NIC0)
    assert matrix.labels == ("gpu0", "gpu1", "nic0")
    assert [matrix.cells[0, column] for column in range(3)] == ["X", "NV4", "PIX"]
    assert [matrix.cells[2, column] for column in range(3)] == ["PIX", "NODE", "X"]
    assert matrix.nvlinks(0) == {1: 4}


def test_fields_behind_the_cells_keep_their_place_where_one_is_empty() -> None:
    matrix = one(HEADER, GPU0, GPU1.replace("0-31\t0", "\t0"), NIC0)
    assert matrix.trailing == (("0-31", "0", "", "N/A"), ("", "0", "", "N/A"))


@pytest.mark.parametrize(
    "rest", ["    0-31    0               N/A", "    0-31\t0\tN/A", "\t0-31    0\t\tN/A"]
)
def test_fields_behind_the_cells_may_be_set_with_blanks(rest: str) -> None:
    matrix = one(HEADER, GPU0.replace("\t0-31\t0\t\tN/A", rest), GPU1, NIC0)
    assert matrix.trailing[0] == ("0-31", "0", "N/A")


@pytest.mark.parametrize(
    "header",
    [
        "GPU0GPU1NIC0CPU AffinityNUMA AffinityGPU NUMA ID",
        "[4mGPU0 GPU1 NIC0 CPU Affinity NUMA Affinity[0m",
        "\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\x1b[0m",
        "^[[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity^[[0m",
        "a note on GPU0, GPU1 and their CPU Affinity and NUMA Affinity",
        "",
    ],
)
def test_the_rows_decide_however_the_header_looks(header: str) -> None:
    matrix = one(header, GPU0, GPU1, NIC0, "NIC0: mlx5_4")
    assert (matrix.gpus, matrix.nics, matrix.has_numa) == (("GPU0", "GPU1"), ("mlx5_4",), True)


@pytest.mark.parametrize("prefix", ["# ", "    ", "> ", "node-7 | ", "[1,0]<stdout>:"])
def test_every_line_may_have_a_prefix(prefix: str) -> None:
    matrix = one(*(prefix + line for line in (HEADER, GPU0, GPU1, NIC0, "NIC0: mlx5_2")))
    assert (matrix.gpus, matrix.nics) == (("GPU0", "GPU1"), ("mlx5_2",))


def test_nics_that_no_header_names_stand_where_their_x_is() -> None:
    rows = (
        "GPU0 X PIX SYS NODE",
        "mlx5_2 SYS SYS X SYS",
        "mlx5_1 NODE SYS SYS X",
    )
    matrix = one(*rows)
    assert matrix.nics == (None, "mlx5_2", "mlx5_1")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((HEADER, "GPU0\t X \tNV4", GPU1), "line 2: GPU0 has 2 cells under 3 columns"),
        ((HEADER, GPU0, "GPU1\tNV4\t X \t0-31\t0"), "line 3: GPU1 has 2 cells under 3 columns"),
        ((HEADER, GPU0), "line 2: no row for GPU1 of 2 GPUs"),
        ((GPU1,), "line 1: no row for GPU0 of 2 GPUs"),
        ((HEADER, GPU0.replace("PIX", "PIX\tPIX"), GPU1), "GPU0 has 4 cells under 3 columns"),
        ((HEADER, GPU1.replace("GPU1", "GPU0"), GPU1), "line 2: NV4 in column 1 of GPU0"),
        ((HEADER, GPU0.replace("NV4", "X"), GPU1), "line 2: X in column 2 of GPU0"),
        ((HEADER, GPU0, GPU1, NIC0.replace("NODE", "X")), "line 4: X in column 2 of NIC0"),
        ((HEADER, GPU0, GPU1, "GPU2\tSYS\tSYS\tSYS"), "line 4: GPU2 has no column"),
        ((HEADER.replace("GPU1", "GPU0"), GPU0), "line 2: a GPU stands twice"),
        (("GPU0 X" + " SYS" * 256,), "line 1: 257 columns; at most 256"),
        (("GPU0 X SYS", "GPU9000 SYS X"), "line 1: 9001 columns; at most 256"),
    ],
)
def test_a_matrix_that_does_not_fit_together_is_refused(
    lines: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SourceError) as caught:
        one(*lines)
    assert str(caught.value).startswith("m.txt: line ")
    assert message in str(caught.value)


def test_a_peer_access_matrix_is_no_matrix_of_levels() -> None:
    text = " \tGPU0\tGPU1\n GPU0\tX\tOK\n GPU1\tOK\tX\n\nLegend:\n\n  OK  = fine\n  CNS = no\n"
    assert not any(block.is_matrix() for block in blocks_from_text(text))
    assert matrices_from_text(text + "\n".join((HEADER, GPU0, GPU1)), where="m")[0].line == 10


def test_the_matrix_of_one_gpu_is_told_by_its_cpu_list() -> None:
    matrix = one("\tGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID", "GPU0\t X \t0-31\t0\t\tN/A")
    assert (matrix.cells, matrix.trailing) == ({(0, 0): "X"}, (("0-31", "0", "", "N/A"),))


def test_a_copy_without_nvlinks_is_of_the_same_machine() -> None:
    full = one(HEADER, GPU0, GPU1, NIC0)
    plain = one(HEADER, GPU0.replace("NV4", "PHB"), GPU1.replace("NV4", "PHB"), NIC0)
    other = one(HEADER, GPU0.replace("PIX", "SYS"), GPU1, NIC0.replace("PIX", "SYS"))
    assert plain.is_plain_copy_of(full)
    assert not full.is_plain_copy_of(plain)
    assert not other.is_plain_copy_of(full)
    assert not one(GPU0, GPU1.replace("NV4", "NV8")).is_plain_copy_of(full)
