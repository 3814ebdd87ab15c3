"""Text metrics."""

import pytest

from topology.diagram.metrics import fitted, printable, text_width


def test_text_is_as_wide_as_its_characters_times_its_size() -> None:
    assert text_width("leaf1", 10) == pytest.approx(5 * 10 * 0.62)
    assert text_width("leaf1", 10, bold=True) == pytest.approx(5 * 10 * 0.70)


def test_text_that_does_not_fit_keeps_its_end() -> None:
    assert fitted("h100-001", 5 * 6.2, 10) == "…-001"


def test_text_that_just_fits_is_kept_whole() -> None:
    assert fitted("h100-001", 8 * 6.2, 10) == "h100-001"


def test_no_room_leaves_no_text() -> None:
    assert fitted("h100-001", 6.2, 10) == ""


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202eabc", "节点", "\x00"])
def test_signs_a_terminal_or_the_font_may_not_show_become_question_marks(text: str) -> None:
    assert "?" in printable(text)
    assert all(sign.isprintable() for sign in printable(text))
