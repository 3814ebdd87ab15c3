"""The pen runs: PNG, SVG and PDF of each view, the same bytes for the same layout."""

import struct
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from functools import cache

import matplotlib
import pytest

from tests.topology.diagram.fleets import missing, port_down, with_first_deviating, with_nodes
from tests.topology.diagram.geometry import SPECS, layout_of_spec
from topology.diagram.draw import layout_of
from topology.diagram.draw_figure import COLOURS, figure_bytes
from topology.diagram.layout import Layout, Role, Text
from topology.diagram.metrics import printable
from topology.words import View

TWO_NODES = "model:dgx1-v100 node:2"
MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "pdf": b"%PDF-1."}


@cache
def drawn(view: View, form: str) -> bytes:
    """Two nodes, drawn once."""
    return figure_bytes(layout_of_spec(TWO_NODES, view), form=form)


def svg_texts(content: bytes) -> set[str]:
    tree = ElementTree.fromstring(content)
    return {"".join(e.itertext()).strip() for e in tree.iter() if e.tag.endswith("}text")}


def with_text(text: str) -> Layout:
    layout = layout_of_spec(SPECS[1], View.NODE)
    return replace(layout, texts=(*layout.texts, Text(50, 50, text)))


@pytest.mark.parametrize("view", View)
def test_an_svg_is_xml_that_holds_every_label(view: View) -> None:
    layout = layout_of_spec("model:gb200-nvl72 rack:2", view)
    wanted = {printable(text.text).strip() for text in layout.texts}
    assert wanted <= svg_texts(figure_bytes(layout, form="svg"))


@pytest.mark.parametrize("form", MAGIC)
@pytest.mark.parametrize("view", View)
def test_a_file_begins_as_its_form_does(form: str, view: View) -> None:
    assert drawn(view, form).startswith(MAGIC[form])


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_layout_gives_the_same_bytes(form: str) -> None:
    again = figure_bytes(layout_of_spec(TWO_NODES, View.FABRIC), form=form)
    assert again == drawn(View.FABRIC, form)


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_no_file_tells_when_it_was_drawn(form: str) -> None:
    content = figure_bytes(layout_of_spec(SPECS[1], View.RACKS), form=form)
    assert b"CreationDate" not in content
    assert b"dc:date" not in content


def test_a_png_has_200_dots_an_inch() -> None:
    layout = layout_of_spec(SPECS[1], View.RACKS)
    width, height = struct.unpack(">II", figure_bytes(layout, form="png")[16:24])
    assert width == pytest.approx(layout.width / 72 * 200, abs=1)
    assert height == pytest.approx(layout.height / 72 * 200, abs=1)


def test_every_mark_and_every_fault_can_be_drawn() -> None:
    faults = missing("gpus[3]"), port_down("gpus[1].ports[7]"), missing("nics[5]")
    fabric = with_first_deviating("model:dgx-h100 node:4 busy:2", *faults)
    for view in View:
        figure_bytes(layout_of(fabric, view), form="svg")
    unreported = with_nodes("model:dgx-h100 node:2", lambda i, node: {"allocations": None})
    figure_bytes(layout_of(unreported, View.RACKS), form="svg")


def test_dollars_are_no_mathematics() -> None:
    assert "cost $x^2$" in svg_texts(figure_bytes(with_text("cost $x^2$"), form="svg"))


@pytest.mark.parametrize("text", ["节点 7", "a\x00b", "\u202eabc", "<&>"])
def test_signs_the_font_lacks_are_replaced_without_a_warning(text: str) -> None:
    assert printable(text) in svg_texts(figure_bytes(with_text(text), form="svg"))


def test_settings_of_the_user_change_nothing() -> None:
    layout = layout_of_spec(SPECS[1], View.NODE)
    plain = figure_bytes(layout, form="svg")
    with matplotlib.rc_context({"font.family": ["serif"], "svg.fonttype": "path"}):
        assert figure_bytes(layout, form="svg") == plain


def test_every_role_has_a_colour_of_its_own() -> None:
    assert COLOURS.keys() == set(Role)
    assert len(set(COLOURS.values())) == len(COLOURS)
