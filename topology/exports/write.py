"""Writing an export: a file or stdout part by part, or a new folder; never half of it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fleet import write_parts
from fleet.console import STDIO
from fleet.errors import StoreError
from fleet.units import text_from_bytes
from topology.errors import WorkloadError
from topology.exports.case import Case, Parts, Product, Progress
from topology.exports.goal import ENDINGS
from topology.exports.readme import readme_text
from topology.words import ExportFormat

README: Final = "README.txt"


def is_one_file(product: Product, output: str) -> bool:
    """Whether an output names the one file of an export and not a folder for all."""
    return product.format is ExportFormat.GOAL and (
        output == STDIO or output.endswith(ENDINGS) or _is_special(Path(output))
    )


def write_export(
    case: Case, product: Product, output: str, *, progress: Progress | None = None
) -> list[str]:
    """Write an export where it is asked for; the names of the files.

    GOAL goes to one file, or to stdout, where ``output`` is ``-`` or ends in ``.goal``.

    Raises:
        WorkloadError: several files are asked onto stdout.
        StoreError: the folder is there and not empty, the disk is too small, or not writable.
    """
    count = _Count(product.size_bytes, progress)
    if is_one_file(product, output):
        (_, parts), *_ = product.files()
        _write_file(count.told(parts), output, product.size_bytes)
        return [output]
    if output == STDIO:
        raise WorkloadError(
            f"{product.format} is several files", field="-o -", remedy="name a folder"
        )
    return _write_folder(case, product, Path(output), count)


class _Count:
    """Tells how many bytes are written, and of how many."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def told(self, parts: Parts) -> Iterator[bytes]:
        """The parts, each told when it is taken."""
        for part in parts:
            yield part
            self._done += len(part)
            if self._progress is not None:
                self._progress(min(self._done, self._total), self._total)


def _is_special(path: Path) -> bool:
    """A pipe or a device, which is written to and never replaced."""
    return path.is_fifo() or path.is_char_device()


def _write_file(parts: Parts, output: str, size_bytes: int) -> None:
    target = Path(os.path.realpath(output))
    is_file = output != STDIO and target.parent.is_dir() and not _is_special(target)
    if is_file and target.suffix != ".gz":
        refuse_full_disk(target.parent, size_bytes, where=output)
    write_parts(parts, output)


def _write_folder(case: Case, product: Product, folder: Path, count: _Count) -> list[str]:
    """A folder filled beside its place, which it takes when all is there."""
    with _told_apart(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise StoreError("is there and not empty", where=str(folder), remedy="name a new one")
        if folder.exists() and not folder.is_dir():
            raise StoreError("a file, not a folder", where=str(folder), remedy="name a new folder")
        folder.parent.mkdir(parents=True, exist_ok=True)
        refuse_full_disk(folder.parent, product.size_bytes, where=str(folder))
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            names = list(_fill(case, product, made, count))
            made.chmod(0o777 & ~_umask())
            os.replace(made, folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return [str(folder / name) for name in names]


def _fill(case: Case, product: Product, folder: Path, count: _Count) -> Iterator[str]:
    told = readme_text(case, product).encode(errors="surrogateescape")
    (folder / README).write_bytes(told)
    yield README
    for name, parts in product.files():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.writelines(count.told(parts))
        yield name


def refuse_full_disk(folder: Path, size_bytes: int, *, where: str) -> None:
    """Refuse what a disk has no room for.

    Raises:
        StoreError: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if size_bytes > free:
        raise StoreError(
            f"takes about {text_from_bytes(size_bytes)}, {text_from_bytes(free)} are free",
            where=where,
            remedy="give fewer --gpus, another disk, or a name that ends in .goal.gz",
        )


@contextmanager
def _told_apart(path: Path) -> Iterator[None]:
    """What the system refuses becomes an error that names the path."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot be written ({error.strerror})",
            where=str(path) or "''",
            remedy="name one in a folder that exists and is yours",
        ) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
