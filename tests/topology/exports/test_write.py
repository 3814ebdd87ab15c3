"""Writing an export: whole or not at all, and never over what is there."""

import gzip
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.errors import StoreError
from tests.topology.exports.factories import TWO_NODES, case_of, text_of
from topology.errors import WorkloadError
from topology.exports.case import Case, Parts, Product
from topology.exports.export import export_product, long_export_text
from topology.exports.write import refuse_full_disk, write_export
from topology.words import ExportFormat


def written(case: Case, asked: ExportFormat, output: Path | str) -> list[str]:
    return write_export(case, export_product(case, asked, str(output)), str(output))


@pytest.mark.parametrize("asked", ExportFormat)
def test_a_folder_has_its_files_and_a_readme(asked: ExportFormat, tmp_path: Path) -> None:
    case = case_of(TWO_NODES, ranks=16)
    names = written(case, asked, tmp_path / "new" / "case")
    files = {str(path) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert files == set(names)
    assert os.listdir(tmp_path / "new") == ["case"]
    text = (tmp_path / "new" / "case" / "README.txt").read_text()
    product = export_product(case, asked, "case")
    for words in (*product.commands, case.command, "nvlink4_nvswitch", "confidence", "S04"):
        assert words in text


def test_a_folder_that_is_not_empty_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        written(case_of(), ExportFormat.ASTRA_SIM, tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    assert len(written(case_of(), ExportFormat.SIMAI, tmp_path / "case")) == 2


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "case").write_text("mine")
    with pytest.raises(StoreError, match="a file, not a folder"):
        written(case_of(), ExportFormat.SIMAI, tmp_path / "case")


@pytest.mark.parametrize("name", ["case.goal", "case.goal.gz"])
def test_goal_goes_to_one_file(name: str, tmp_path: Path) -> None:
    case = case_of()
    assert written(case, ExportFormat.GOAL, tmp_path / name) == [str(tmp_path / name)]
    content = (tmp_path / name).read_bytes()
    text = gzip.decompress(content) if name.endswith(".gz") else content
    assert text.decode() == text_of(case)
    assert os.listdir(tmp_path) == [name]


def test_goal_goes_down_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    written(case_of(), ExportFormat.GOAL, pipe)
    reader.join(timeout=10)
    assert read == [text_of(case_of())]


def test_a_folder_is_no_goal_file(tmp_path: Path) -> None:
    (tmp_path / "a.goal").mkdir()
    with pytest.raises(StoreError, match="a folder, not a file"):
        written(case_of(), ExportFormat.GOAL, tmp_path / "a.goal")


def test_a_path_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file/a.goal", "nowhere/a.goal", "file/case"):
        with pytest.raises(StoreError, match="cannot be written"):
            written(case_of(), ExportFormat.GOAL, tmp_path / name)


def test_several_files_do_not_go_to_stdout() -> None:
    with pytest.raises(WorkloadError, match="several files"):
        written(case_of(), ExportFormat.ASTRA_SIM, "-")


def failing(product: Product) -> Product:
    """The same product, whose second part fails."""

    def parts() -> Iterator[bytes]:
        yield b"num_ranks 8\n"
        raise OSError(28, "No space left on device")

    def files() -> Iterator[tuple[str, Parts]]:
        yield "case.goal", parts()

    return replace(product, files=files)


@pytest.mark.parametrize("name", ["case.goal", "case"])
def test_what_fails_half_way_leaves_nothing(name: str, tmp_path: Path) -> None:
    case = case_of()
    product = failing(export_product(case, ExportFormat.GOAL, name))
    with pytest.raises(StoreError, match="No space left"):
        write_export(case, product, str(tmp_path / name))
    assert os.listdir(tmp_path) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    old = tmp_path / "case.goal"
    old.write_text("old")
    case = case_of()
    with pytest.raises(StoreError):
        write_export(case, failing(export_product(case, ExportFormat.GOAL, "x")), str(old))
    assert old.read_text() == "old"


def test_more_than_the_disk_holds_is_refused_before_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"takes about 1024 TiB, .* are free") as refusal:
        refuse_full_disk(tmp_path, 2**50, where="case.goal")
    assert "fewer --gpus" in refusal.value.remedy
    refuse_full_disk(tmp_path, 1, where="case.goal")


def test_what_is_large_is_told_with_messages_and_bytes() -> None:
    product = export_product(case_of(), ExportFormat.GOAL, "x")
    assert long_export_text(product) is None
    large = replace(product, size_bytes=2_876_000_000, messages=33_546_240)
    assert long_export_text(large) == "33546240 messages, about 2.7 GiB"


def test_progress_counts_bytes_to_the_end(tmp_path: Path) -> None:
    case, told = case_of(), list[tuple[int, int]]()
    product = export_product(case, ExportFormat.ASTRA_SIM, "x")
    output = str(tmp_path / "case")
    write_export(case, product, output, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (product.size_bytes, product.size_bytes)
    assert told == sorted(told)
