"""The matrix of nvidia-smi topo as text: finds it among other output, makes a table of cells.

What the cells mean is not told here. Lines are searched, not split by column: the text may have
a prefix on each line, colours, tabs or blanks, and a header with nothing between its names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

from fleet.errors import SourceError

MOST_DEVICES: Final = 256

_ESCAPE: Final = re.compile(r"(?:\x1b|\^\[)\[[0-9;?]*[A-Za-z]|\x1b\([0-9A-Z]|\[[0-9;]+m", re.ASCII)
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_LEVEL: Final = r"(?:NV[1-9][0-9]{0,2}|PIX|PXB|PHB|NODE|SYS|SOC)"
_ROW: Final = re.compile(
    rf"(?<![\w.-])(?P<label>[A-Za-z][\w.-]*)\s+(?P<cells>(?:X|{_LEVEL})(?:\s.*)?)$", re.ASCII
)
_GPU_ROW: Final = re.compile(
    r"(?<![\w.-])(?P<label>GPU[0-9]{1,4})\s+"
    r"(?P<cells>(?!GPU[0-9])[A-Z][A-Z0-9/+_]{0,15}(?:\s.*)?)$",
    re.ASCII,
)
_KNOWN_CELL: Final = re.compile(rf"X|{_LEVEL}")
_ANY_CELL: Final = re.compile(r"[A-Z][A-Z0-9/+_]{0,15}")
_GPU: Final = re.compile(r"GPU[0-9]{1,4}")
_FIRST_GPU: Final = re.compile(r"(?<![\w.-])GPU[0-9]", re.ASCII)
_JOINED: Final = re.compile(r"(?:GPU[0-9]+|NIC[0-9]+|mlx[0-9]+_[0-9]+)+")
_JOINED_PART: Final = re.compile(r"GPU[0-9]+|NIC[0-9]+|mlx[0-9]+_[0-9]+")
_NIC: Final = re.compile(r"[A-Za-z](?=[\w.-]*[0-9])[\w.-]*", re.ASCII)
_AFFINITY: Final = re.compile(r"CPU\s*Affinity")
_NUMA: Final = re.compile(r"NUMA\s*Affinity")
_LEGEND: Final = re.compile(r"(?<!\w)(?P<label>NIC[0-9]{1,4})\s*:\s*(?P<name>[\w.+:-]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Header:
    """Names of the columns (no GPU: not legible); whether CPU list and NUMA node have columns."""

    gpus: tuple[str, ...]
    nics: tuple[str, ...]
    affinity: bool
    numa: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the matrix: its name, and its text from the first cell on."""

    label: str
    text: str
    line: int

    @property
    def words(self) -> list[str]:
        """Cells, then what stands in the columns behind them."""
        return self.text.split()


@dataclass(slots=True)
class Block:
    """Lines that belong to one matrix."""

    header: Header | None
    gpus: dict[str, Row] = field(default_factory=dict)
    others: list[Row] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Take one more row, which no GPU row with its name precedes."""
        if _GPU.fullmatch(row.label):
            self.gpus[row.label] = row
        else:
            self.others.append(row)

    @property
    def columns(self) -> Header | None:
        """The header, if its names are legible."""
        return self.header if self.header and self.header.gpus else None

    @property
    def first_line(self) -> int:
        """Where it begins."""
        return min(row.line for row in self.gpus.values())

    @property
    def last_line(self) -> int:
        """Where the last row of a GPU stands."""
        return max(row.line for row in self.gpus.values())

    def is_matrix(self) -> bool:
        """Whether it is one: ``topo -p2p`` has GPU rows too, but no levels and no CPU list."""
        if self.header is not None and self.header.affinity:
            return True
        return any(
            _KNOWN_CELL.fullmatch(word) and word != "X"
            for row in self.gpus.values()
            for word in row.words
        )


@dataclass(frozen=True, slots=True)
class Matrix:
    """Cells by (row, column), devices counted through: GPUs first, then NICs.

    ``trailing`` holds, for each GPU, the fields of the columns behind the cells.
    """

    gpus: tuple[str, ...]
    nics: tuple[str | None, ...]
    cells: dict[tuple[int, int], str]
    trailing: tuple[tuple[str, ...], ...]
    has_numa: bool
    line: int

    @property
    def labels(self) -> tuple[str, ...]:
        """``gpu0`` ..., ``nic0`` ...: the devices in the model's words."""
        gpus = (f"gpu{i}" for i in range(len(self.gpus)))
        return (*gpus, *(f"nic{i}" for i in range(len(self.nics))))

    def nvlinks(self, gpu: int) -> dict[int, int]:
        """NVLinks of a GPU's row by the GPU of the column."""
        cells = {peer: self.cells.get((gpu, peer), "") for peer in range(len(self.gpus))}
        return {peer: int(cell[2:]) for peer, cell in cells.items() if is_nvlink(cell)}

    @property
    def has_nvlinks(self) -> bool:
        """Whether any cell counts NVLinks."""
        return any(is_nvlink(cell) for cell in self.cells.values())

    def is_plain_copy_of(self, other: "Matrix") -> bool:
        """Whether both are of one machine: equal, but that this one hides NVLinks (topo -mp)."""
        if (self.gpus, len(self.nics)) != (other.gpus, len(other.nics)):
            return False
        pairs = self.cells.keys() & other.cells.keys()
        here, there = self.cells, other.cells
        return all(
            here[pair] == there[pair] or (is_nvlink(there[pair]) and not is_nvlink(here[pair]))
            for pair in pairs
        )


def matrices_from_text(text: str, *, where: str) -> tuple[Matrix, ...]:
    """The matrices of a text, in its order.

    Raises:
        SourceError: a matrix is cut, wrapped or does not fit its header; with the line.
    """
    return tuple(_matrix(block, where) for block in blocks_from_text(text) if block.is_matrix())


def blocks_from_text(text: str) -> list[Block]:
    """Groups of lines that may be matrices; a header or a row seen before begins the next one."""
    blocks: list[Block] = []
    header: Header | None = None
    for line, content in enumerate(clean_lines(text), start=1):
        row = _row_from_line(content, line)
        if row is not None:
            is_gpu = _GPU.fullmatch(row.label) is not None
            if is_gpu and (header or not blocks or row.label in blocks[-1].gpus):
                blocks.append(Block(header))
                header = None
            if blocks:
                blocks[-1].add(row)
        else:
            header = _header_from_line(content) or header
            if blocks:
                blocks[-1].names.update(_names_from_line(content))
    return blocks


def clean_lines(text: str) -> Iterator[str]:
    """Lines without the escapes of terminals (also where their first character was lost)."""
    for line in _LINE_END.split(text.removeprefix("\ufeff")):
        yield _ESCAPE.sub("", line)


def _row_from_line(line: str, number: int) -> Row | None:
    match = _GPU_ROW.search(line)
    if match is None or "X" not in match["cells"].split():
        match = _ROW.search(line)
    if match is None or _KNOWN_CELL.fullmatch(match["label"]):
        return None
    return Row(match["label"], match["cells"], number)


def _names_from_line(line: str) -> dict[str, str]:
    match = _LEGEND.search(line)
    return {match["label"]: match["name"]} if match else {}


def _header_from_line(line: str) -> Header | None:
    first = _FIRST_GPU.search(line)
    if first is None:
        return None
    affinity = _AFFINITY.search(line)
    names = _columns(line[first.start() : affinity.start() if affinity else len(line)])
    gpus = tuple(name for name in names if _GPU.fullmatch(name))
    if len(names) < 2 and affinity is None:
        return None
    return Header(
        gpus=gpus,
        nics=tuple(name for name in names if name not in gpus) if gpus else (),
        affinity=affinity is not None,
        numa=_NUMA.search(line) is not None,
    )


def _columns(text: str) -> list[str]:
    """Names of columns; empty if a word is none, for then the line is prose."""
    names: list[str] = []
    for word in text.split():
        if _JOINED.fullmatch(word):
            names.extend(_JOINED_PART.findall(word))
        elif _NIC.fullmatch(word):
            names.append(word)
        else:
            return []
    return names


def _matrix(block: Block, where: str) -> Matrix:
    gpus, width = _shape(block, where)
    cells: dict[tuple[int, int], str] = {}
    for i, gpu in enumerate(gpus):
        if gpu not in block.gpus:
            _refuse(f"no row for {gpu} of {len(gpus)} GPUs", block.last_line, where)
        cells.update(_gpu_cells(block.gpus[gpu], i, width, where))
    named = block.columns.nics if block.columns else ()
    nics: list[str | None] = [*named] or [None] * (width - len(gpus))
    for row in block.others:
        column = _nic_column(row, len(gpus), nics)
        if column is not None:
            nics[column - len(gpus)] = row.label
            cells.update(_nic_cells(row, column, width, where))
    trailing = tuple(_trailing(block.gpus[gpu], width) for gpu in gpus)
    return Matrix(
        gpus=gpus,
        nics=tuple(_nic_name(nic, block.names) for nic in nics),
        cells=cells,
        trailing=trailing,
        has_numa=block.columns.numa if block.columns else any(len(f) > 1 for f in trailing),
        line=block.first_line,
    )


def _shape(block: Block, where: str) -> tuple[tuple[str, ...], int]:
    """Labels of the GPU columns and the count of all columns; from the rows without a header."""
    if block.columns:
        gpus = block.columns.gpus
        width = len(gpus) + len(block.columns.nics)
    else:
        last = max(int(label.removeprefix("GPU")) for label in block.gpus)
        gpus = tuple(f"GPU{i}" for i in range(last + 1))
        width = max(_known_cells(row) for row in block.gpus.values())
    if max(width, len(gpus)) > MOST_DEVICES:
        remedy = f"at most {MOST_DEVICES} can be read"
        _refuse(f"{max(width, len(gpus))} columns", block.first_line, where, remedy)
    if len(set(gpus)) < len(gpus):
        _refuse("a GPU stands twice in the header", block.first_line, where)
    for row in block.gpus.values():
        if row.label not in gpus:
            _refuse(f"{row.label} has no column", row.line, where)
    return gpus, width


def _known_cells(row: Row) -> int:
    words = row.words
    return next((i for i, w in enumerate(words) if not _KNOWN_CELL.fullmatch(w)), len(words))


def _gpu_cells(row: Row, gpu: int, width: int, where: str) -> dict[tuple[int, int], str]:
    words = row.words[:width]
    count = next((i for i, w in enumerate(words) if not _ANY_CELL.fullmatch(w)), len(words))
    if count < width or _known_cells(row) > width:
        found = max(count, _known_cells(row))
        _refuse(f"{row.label} has {found} cells under {width} columns", row.line, where)
    _require_x(row, gpu, words, where)
    return {(gpu, column): word for column, word in enumerate(words)}


def _nic_column(row: Row, gpu_count: int, nics: list[str | None]) -> int | None:
    """Column of a NIC's row: by its name, or by where its X stands where no header names it."""
    if not _NIC.fullmatch(row.label):
        return None
    if row.label in nics:
        return gpu_count + nics.index(row.label)
    column = row.words.index("X") if "X" in row.words else -1
    is_free = 0 <= column - gpu_count < len(nics) and nics[column - gpu_count] is None
    return column if is_free else None


def _nic_cells(row: Row, nic: int, width: int, where: str) -> dict[tuple[int, int], str]:
    """Cells of a NIC's row; it may be cut, for the columns above tell most of it."""
    words = row.words[:width]
    count = next((i for i, w in enumerate(words) if not _ANY_CELL.fullmatch(w)), len(words))
    _require_x(row, nic, words[:count], where)
    return {(nic, column): word for column, word in enumerate(words[:count])}


def _require_x(row: Row, own: int, words: list[str], where: str) -> None:
    for column, word in enumerate(words):
        if (word == "X") != (column == own):
            found = f"{word} in column {column + 1} of {row.label}, whose own column is {own + 1}"
            _refuse(found, row.line, where)


def _trailing(row: Row, width: int) -> tuple[str, ...]:
    """Fields behind the cells: by tabs where there are any, for some of them are empty."""
    words = list(re.finditer(r"\S+", row.text))
    rest = row.text[words[width - 1].end() :]
    by_tab = [part.strip() for part in rest.split("\t")]
    if len(by_tab) > 1 and not any(" " in part for part in by_tab):
        return tuple(by_tab if by_tab[0] else by_tab[1:])
    return tuple(rest.split())


def _nic_name(label: str | None, names: dict[str, str]) -> str | None:
    """A device's name: a column has it, or a number (``NIC0``) which the legend explains."""
    is_number = label is not None and re.fullmatch(r"NIC[0-9]+", label)
    return names.get(label or "") if is_number else label


def is_nvlink(cell: str) -> bool:
    """Whether a cell counts NVLinks (``NV18``) and does not name a PCIe level."""
    return re.fullmatch(r"NV[1-9][0-9]*", cell) is not None


def _refuse(problem: str, line: int, where: str, remedy: str = "") -> NoReturn:
    remedy = remedy or "the matrix is cut, wrapped or mixed: write it again with nvidia-smi topo -m"
    raise SourceError(problem, where=where, field=f"line {line}", remedy=remedy)
