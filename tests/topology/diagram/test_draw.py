"""From a fabric to a file: endings, errors, and any fleet at all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet import FleetError, fleet_from_spec
from tests.topology.diagram.fleets import EMPTY
from tests.topology.diagram.geometry import SPECS, fabric_of, layout_of_spec, problems
from topology.diagram.draw import ENDINGS, composed, draw_view, drawing_document, layout_of
from topology.diagram.layout import Body, LegendEntry, LegendTable, Sheet
from topology.errors import WorkloadError
from topology.fabric.from_fleet import Fabric
from topology.words import View

SMALL = "model:dgx-h100 node:1"
MODELS = ("dgx-h100", "dgx-a100", "gb200-nvl72", "dgx1-v100", "pcie-l40s", "beowulf-2006")
START = {".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF-", ".txt": b"Fleet map of "}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_ending_chooses_the_form(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"racks{ending.upper()}"
    draw_view(fabric_of(SMALL), View.RACKS, output=str(path))
    assert path.read_bytes().startswith(START[ending])


def test_a_dash_prints_text(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    draw_view(fabric_of(SMALL), View.RACKS, output="-")
    assert capfdbinary.readouterr().out.startswith(b"Fleet map of model:dgx-h100 node:1\n")


@pytest.mark.parametrize("name", ["fleet.gif", "fleet", "fleet.svg.gz", "fleet.PNGX"])
def test_another_ending_is_refused_and_the_possible_ones_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"\.png, \.svg, \.pdf, \.txt"):
        draw_view(fabric_of(SMALL), View.RACKS, output=str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("view", View)
def test_a_map_without_nodes_is_refused(view: View) -> None:
    with pytest.raises(WorkloadError, match="no nodes to draw"):
        layout_of(Fabric(EMPTY), view)


@pytest.mark.parametrize("view", [View.RACKS, View.FABRIC])
def test_a_host_is_refused_where_all_nodes_are_shown(view: View) -> None:
    with pytest.raises(WorkloadError, match="use the view node"):
        layout_of(fabric_of(SMALL), view, host="h100-001")


def test_an_old_picture_stays_where_the_new_one_cannot_be_drawn(tmp_path: Path) -> None:
    path = tmp_path / "node.txt"
    path.write_text("old")
    with pytest.raises(WorkloadError, match="no host"):
        draw_view(fabric_of(SMALL), View.NODE, host="other", output=str(path))
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="cannot be written"):
        draw_view(fabric_of(SMALL), View.RACKS, output=str(tmp_path / "no" / "racks.txt"))


def test_text_is_drawn_without_matplotlib(root: Path) -> None:
    code = (
        "import sys; from fleet import fleet_from_spec; from topology.words import View\n"
        "from topology.fabric.from_fleet import Fabric\n"
        "from topology.diagram.draw import draw_view\n"
        f"draw_view(Fabric(fleet_from_spec({SMALL!r})), View.NODE, output='-')\n"
        "assert 'matplotlib' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("view", View)
def test_the_same_fleet_gives_the_same_layout(view: View) -> None:
    again = layout_of(Fabric(fleet_from_spec(SPECS[7])), view)
    assert again == layout_of_spec(SPECS[7], view)


def test_the_layout_does_not_depend_on_the_order_of_hashes(root: Path) -> None:
    code = (
        "from fleet import fleet_from_spec; from topology.words import View\n"
        "from topology.fabric.from_fleet import Fabric\n"
        "from topology.diagram.draw import layout_of\n"
        f"fabric = Fabric(fleet_from_spec({SPECS[7]!r}))\n"
        "print([layout_of(fabric, view) for view in View])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]


def sheet_with(table: LegendTable, *, width: float) -> Sheet:
    return Sheet("kicker", "title", "subtitle", Body(width, 100.0), (table,))


def test_the_legend_of_a_slim_picture_stands_beside_it() -> None:
    rows = tuple(LegendEntry(None, (f"row {i}",)) for i in range(40))
    table = LegendTable("Legend", ("",), rows)
    beside = composed(sheet_with(table, width=300.0))
    below = composed(sheet_with(table, width=1200.0))
    place = {
        layout.width: next(t for t in layout.texts if t.text == "Legend")
        for layout in (beside, below)
    }
    assert place[beside.width].x > 300
    assert place[below.width].y > 100 + 36


def test_an_empty_table_leaves_no_title() -> None:
    layout = composed(sheet_with(LegendTable("Legend", ("",), ()), width=600.0))
    assert "Legend" not in {text.text for text in layout.texts}


def test_a_long_note_is_broken_into_lines() -> None:
    sheet = Sheet("k", "t", "s", Body(600.0, 100.0), (), ("word " * 100, "x" * 500))
    assert problems(composed(sheet)) == []


@settings(max_examples=25, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    nodes=st.integers(1, 70),
    busy=st.lists(st.integers(0, 1), min_size=1, max_size=3),
    view=st.sampled_from(View),
)
def test_any_fleet_is_drawn_without_a_fault(
    model: str, nodes: int, busy: list[int], view: View
) -> None:
    held = ",".join(str(count) for count in busy)
    fabric = Fabric(fleet_from_spec(f"model:{model} node:{nodes} busy:{held}"))
    assert problems(layout_of(fabric, view)) == []


@pytest.mark.parametrize("view", View)
def test_a_drawing_as_json_holds_every_box_line_and_text(view: View) -> None:
    layout = layout_of(fabric_of("model:dgx-h100 node:2"), view)
    document = json.loads(json.dumps(drawing_document(layout, view), allow_nan=False))
    assert (document["kind"], document["schema_version"], document["view"]) == (
        "drawing",
        1,
        view.value,
    )
    assert [box["name"] for box in document["boxes"]] == [box.name for box in layout.boxes]
    assert [text["text"] for text in document["texts"]] == [text.text for text in layout.texts]
    assert len(document["lines"]) == len(layout.lines)
