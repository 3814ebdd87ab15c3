"""The pen for plain text: the boxes of a picture row by row, at most 120 columns wide."""

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fleet.console import table_lines
from fleet.naming import name_runs
from topology.diagram.layout import Body, Box, BoxKind, Health, Layout, LegendTable, Mark, Tier, Use
from topology.diagram.metrics import printable

COLUMNS: Final = 120
_IN_ROWS: Final = (BoxKind.SWITCH, BoxKind.NODE, BoxKind.DEVICE)
_ROW_SLACK: Final = 12.0
_LEAST_COLUMN: Final = 12


def text_of_layout(layout: Layout) -> str:
    """The diagram as lines of text."""
    sheet = layout.sheet
    body = _racks(sheet.body) if _has_racks(sheet.body) else _tiers(sheet.body)
    blocks = [
        [sheet.kicker, sheet.title, sheet.subtitle],
        list(body),
        *([table.title, *_table(table)] for table in sheet.legend),
        [line for note in sheet.notes for line in textwrap.wrap(note, COLUMNS)],
    ]
    text = "\n\n".join(
        "\n".join(_cut(printable(line)) for line in block) for block in blocks if block
    )
    return text + "\n"


def sign(mark: Mark) -> str:
    """One character for a slot.

    >>> [sign(Mark(use)) for use in Use], sign(Mark(Use.HELD, Health.DEVIATING))
    (['.', '#', '?'], '%')
    """
    if mark.health is Health.MISSING:
        return "x"
    if mark.health is Health.DEVIATING:
        return "%" if mark.use is Use.HELD else "!"
    if mark.is_cpu:
        return {Use.FREE: "o", Use.HELD: "@", Use.UNREPORTED: "?"}[mark.use]
    return {Use.FREE: ".", Use.HELD: "#", Use.UNREPORTED: "?"}[mark.use]


def _has_racks(body: Body) -> bool:
    return any(box.kind is BoxKind.RACK for box in body.boxes)


def _racks(body: Body) -> Iterator[str]:
    """A line for each rack: its nodes from the lowest up, one sign a slot."""
    inside: dict[str, list[Box]] = defaultdict(list)
    for box in body.boxes:
        inside[box.inside].append(box)
    for band in inside[""]:
        yield band.label
        for rack in inside[band.name]:
            name = rack.name.removeprefix(f"{band.name}: ")
            nodes = [box for box in inside[rack.name] if box.kind is BoxKind.NODE]
            words = [f"{node.name} {_signs(inside[node.name])}" for node in nodes]
            words += [f"| {box.label}" for box in inside[rack.name] if box.kind is BoxKind.DOMAIN]
            yield from _wrapped(f"  {name} |", words)


def _signs(slots: Iterable[Box]) -> str:
    return "".join(sign(slot.mark) for slot in slots if slot.mark is not None)


def _tiers(body: Body) -> Iterator[str]:
    """Rows from the top with what is between them, then all links by kind."""
    inside: dict[str, list[Box]] = defaultdict(list)
    for box in body.boxes:
        inside[box.inside].append(box)
    domains = [box for box in body.boxes if box.kind is BoxKind.DOMAIN]
    in_domain = {box.name for domain in domains for box in inside[domain.name]}
    parts = [box for box in body.boxes if box.kind in _IN_ROWS and box.name not in in_domain]
    rows = [(tier, _in_tier(parts, tier)) for tier in sorted(body.tiers, key=lambda tier: tier.y)]
    placed = {box.name for _, boxes in rows for box in boxes}
    rest = [box for box in parts if box.name not in placed]
    yield from _wrapped(" ", [_bracketed(box, ()) for box in rest])
    for tier, boxes in rows:
        told = "; ".join(tier.details)
        yield f"{tier.label}: {told}".removesuffix(": ") if tier.label else f"    {told}"
        yield from _wrapped(" ", [_bracketed(box, inside[box.name]) for box in boxes])
    for domain in domains:
        members = _by_x(inside[domain.name])
        yield from _wrapped(f"  {domain.label}:", [_bracketed(b, inside[b.name]) for b in members])
    yield from _links(body)


def _in_tier(boxes: Iterable[Box], tier: Tier) -> list[Box]:
    """Boxes that stand in a row, from the left; a gap between rows has none."""
    top, low = tier.y - _ROW_SLACK, tier.y + tier.height
    return _by_x(box for box in boxes if tier.label and top <= box.y <= low)


def _by_x(boxes: Iterable[Box]) -> list[Box]:
    return sorted(boxes, key=lambda box: (box.y, box.x))


def _bracketed(box: Box, parts: Sequence[Box]) -> str:
    signs = _signs(parts)
    words = ", ".join(word for word in (box.label, *box.details) if word)
    return f"[{words} {signs}]" if signs else f"[{words}]"


def _links(body: Body) -> Iterator[str]:
    """Lines of the picture by kind; boxes with the same lines to the same boxes stand together."""
    ends: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for line in body.lines:
        if line.label:
            ends[line.kind, line.label][line.ends[0]].append(line.ends[1])
    for (kind, label), far_ends in ends.items():
        near_ends: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for near, far in far_ends.items():
            near_ends[tuple(far)].append(near)
        words = [
            f"{', '.join(name_runs(near))} -- {', '.join(name_runs(far))};"
            for far, near in near_ends.items()
        ]
        yield from _wrapped(f"{kind}, {label}:", [*words[:-1], words[-1].rstrip(";")])


def _wrapped(head: str, words: Sequence[str]) -> Iterator[str]:
    """Words after a head, in lines of at most 120 columns; words stay whole."""
    if not words:
        return
    line, indent = head, " " * min(len(head), 12)
    for word in words:
        if len(line) + 2 + len(word) > COLUMNS and line.strip():
            yield line
            line = indent
        line = f"{line} {word}" if line in (head, indent) else f"{line}  {word}"
    yield line


def _table(table: LegendTable) -> list[str]:
    """A legend as columns; where it is too wide, its widest column gives way."""
    signs = [sign(e.swatch) if isinstance(e.swatch, Mark) else "" for e in table.entries]
    rows = [("  " + mark, *entry.cells) for mark, entry in zip(signs, table.entries, strict=True)]
    header = ("  ", *table.header)
    while True:
        right = [i + 1 for i in table.right]
        lines = table_lines(header, rows, right=right)
        excess = max(len(line) for line in lines) - COLUMNS
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        if excess <= 0 or max(widths) <= _LEAST_COLUMN:
            return [line for line in lines if line.strip()]
        widest = widths.index(max(widths))
        limit = max(_LEAST_COLUMN, widths[widest] - excess)
        rows = [
            tuple(_cut(cell, limit) if i == widest else cell for i, cell in enumerate(row))
            for row in rows
        ]


def _cut(text: str, limit: int = COLUMNS) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
