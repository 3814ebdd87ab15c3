"""Text on paper: how wide it is, and how it is cut to fit."""

from typing import Final

CHARACTER_EM: Final = 0.62
"""Width taken for a character; a test holds it against the pen's typeface. [em]"""
BOLD_CHARACTER_EM: Final = 0.70
"""The same, bold. [em]"""
LINE_SPACING: Final = 1.35
"""From one line of text to the next. [em]"""
SMALLEST_PT: Final = 6.0
"""Smaller type is not printed. [pt]"""
PADDING: Final = 4.0
"""Between a label and the edge of its box. [pt]"""
ONE_EACH: Final = 1 / CHARACTER_EM
"""The type size in which a character is 1 wide: to fit by characters."""
_ELLIPSIS: Final = "…"


def text_width(text: str, size_pt: float, *, bold: bool = False) -> float:
    """Estimated width of a line of text. [pt]

    >>> text_width("leaf", 10)
    24.8
    """
    return len(text) * size_pt * (BOLD_CHARACTER_EM if bold else CHARACTER_EM)


def fitted(text: str, width: float, size_pt: float, *, bold: bool = False) -> str:
    """The text, or as much of its end as fits; names differ at their end.

    >>> fitted("h100-001", 100, 10), fitted("h100-001", 31, 10), fitted("h100-001", 5, 10)
    ('h100-001', '…-001', '')
    """
    fits = int(width / text_width("x", size_pt, bold=bold) + 1e-9)
    if len(text) <= fits:
        return text
    return _ELLIPSIS + text[len(text) - fits + 1 :] if fits > 1 else ""


def printable(text: str) -> str:
    r"""The text with '?' for what DejaVu Sans or a terminal may not show as one sign.

    >>> printable("rack\x1b[2J 7")
    'rack?[2J 7'
    """
    return "".join(c if c.isprintable() and (c < "\u0250" or c == _ELLIPSIS) else "?" for c in text)
