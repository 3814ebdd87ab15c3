"""Samples do not go stale: each loads, checks clean, round-trips, and prints what is expected."""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fleet import check_fleet, fleet_from_spec, load_fleet, save_fleet
from fleet.inventory import take_inventory
from fleet.merge import merge_snapshots, snapshots_of
from tests.console_blocks import difference, examples_of, run
from tests.contracts import assert_honest
from topology.diagram.draw import draw_view, layout_of
from topology.diagram.metrics import printable
from topology.fabric.from_fleet import load_fabric
from topology.plan.workload import load_workload
from topology.words import View

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
FLEETS = sorted(SAMPLES.glob("fleets/*.json*"))
WORKLOADS = sorted(SAMPLES.glob("workloads/*.yaml"))
CAPTURES = sorted(path for path in SAMPLES.glob("captures/*") if path.is_dir())
EXPECTED = sorted(SAMPLES.glob("expected/*.txt"))
PICTURES = sorted(SAMPLES.glob("pictures/*.svg"))


def name_of(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", FLEETS, ids=name_of)
def test_fleet_loads_checks_clean_and_round_trips(path: Path, tmp_path: Path) -> None:
    fleet = load_fleet(path)
    assert check_fleet(fleet) == ()
    for ending in (".json", ".json.gz"):
        save_fleet(fleet, tmp_path / f"again{ending}")
        assert load_fleet(tmp_path / f"again{ending}") == fleet


FINDINGS = {"h100-silent-gpu": {"gpu_silent", "recovery_advised", "row_remap_pending"}}
"""Codes that ``fleet check`` gives of the captures in which something is wrong."""


@pytest.mark.parametrize("path", FLEETS, ids=name_of)
def test_fleet_is_made_again_from_its_spec(path: Path) -> None:
    fleet = load_fleet(path)
    assert fleet.spec is not None
    assert fleet_from_spec(fleet.spec) == fleet


@pytest.mark.parametrize("path", FLEETS, ids=name_of)
def test_fleet_is_made_again_from_its_snapshots(path: Path) -> None:
    fleet = load_fleet(path)
    again = merge_snapshots(
        snapshots_of(fleet), switches=fleet.switches, cables=fleet.cables, spec=fleet.spec
    )
    assert again == fleet


@pytest.mark.parametrize("path", WORKLOADS, ids=name_of)
def test_workload_loads_and_names_itself_after_its_file(path: Path) -> None:
    assert load_workload(path).name == path.stem


@pytest.mark.parametrize("path", CAPTURES, ids=name_of)
def test_capture_maps_without_refusals_and_is_honest(path: Path) -> None:
    gathered = take_inventory(files=[path])
    assert gathered.refused == ()
    assert gathered.fleet.nodes
    codes = {finding.code for finding in check_fleet(gathered.fleet)}
    assert codes == FINDINGS.get(path.name, set())
    for snapshot in snapshots_of(gathered.fleet):
        assert_honest(snapshot)


@pytest.mark.parametrize("path", CAPTURES, ids=name_of)
def test_capture_says_that_it_is_made(path: Path) -> None:
    assert "made" in (path / "NOTE.md").read_text().lower()


@pytest.mark.parametrize("path", EXPECTED, ids=name_of)
def test_command_prints_what_is_expected(
    path: Path, root: Path, request: pytest.FixtureRequest
) -> None:
    (example,) = examples_of(path.read_text())
    printed = run(example.command, root)
    if request.config.getoption("--update-golden"):
        path.write_text(f"$ {example.command}\n{printed}")
        return
    assert difference(example.expected, printed) is None


@pytest.mark.parametrize("path", PICTURES, ids=name_of)
def test_picture_has_the_labels_that_are_drawn_now(
    path: Path, request: pytest.FixtureRequest
) -> None:
    """Named VIEW-FLEET.svg. Labels only: other versions of matplotlib write other XML."""
    view, _, fleet = path.stem.partition("-")
    (source,) = SAMPLES.glob(f"fleets/{fleet}.json*")
    fabric = load_fabric(source)
    if request.config.getoption("--update-golden"):
        draw_view(fabric, View(view), output=str(path))
        return
    drawn = Counter(printable(text.text) for text in layout_of(fabric, View(view)).texts)
    assert Counter(labels_of(path)) == drawn


def labels_of(picture: Path) -> list[str]:
    root = ElementTree.fromstring(picture.read_bytes())
    return [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text")]
