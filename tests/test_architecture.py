"""The layer table of the design: imports go down only. Read with ast, and proved to bite."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

FLEET_LAYERS = (
    {"start"},
    {"cli"},
    {"cli_agent", "cli_doctor", "cli_gather"},
    {"inventory", "report", "doctor"},
    {"gather"},
    {"agent"},
    {"node"},
    {"sources", "store", "redact"},
    {"merge", "check"},
    {"health"},
    {"shapes", "faults"},
    {"slots"},
    {"model", "console", "reading"},
    {"wiring", "state"},
    {"fields"},
    {"units", "errors", "naming", "probe", "memory"},
)
TOPOLOGY_LAYERS = (
    {"start"},
    {"cli"},
    {
        "cli_diagnose",
        "cli_export",
        "cli_figures",
        "cli_measured",
        "cli_plan",
        "cli_show",
        "cli_simulate",
        "cli_sweep",
        "cli_step",
        "cli_tail",
    },
    {"cli_options"},
    {"api"},
    {"diagram", "exports"},
    {"plan", "measured"},
    {"steps"},
    {"latency"},
    {"collective"},
    {"fabric"},
    {"documents"},
    {"errors", "words"},
)
FRONT_DOOR = {"fleet", "fleet.units", "fleet.naming", "fleet.errors", "fleet.console"}
ONLY_IMPORTER = {
    "pynvml": "fleet/probe/binding.py",
    "matplotlib": "topology/diagram/draw_figure.py",
}
QUICK_MODULES = (
    "fleet/start.py",
    "topology/start.py",
    "fleet/cli.py",
    "fleet/cli_agent.py",
    "fleet/cli_doctor.py",
    "fleet/cli_gather.py",
    "topology/cli.py",
    "topology/cli_diagnose.py",
    "topology/cli_export.py",
    "topology/cli_figures.py",
    "topology/cli_measured.py",
    "topology/cli_options.py",
    "topology/cli_plan.py",
    "topology/cli_show.py",
    "topology/cli_simulate.py",
    "topology/cli_sweep.py",
    "topology/cli_step.py",
    "topology/cli_tail.py",
    "fleet/console.py",
    "topology/words.py",
)
HEAVY = {"pydantic", "numpy", "networkx", "matplotlib", "pynvml", "yaml", "rich"}
"""What `--help` must not load."""

SAME_LAYER_ALLOWED = {
    # The sources read and write documents of the store's, and the store knows no source.
    ("fleet.sources", "fleet.store"),
    # A report prints findings; neither takes an inventory.
    ("fleet.units", "fleet.errors"),
}


def imports_of(source: str) -> Iterator[tuple[str, bool]]:
    """Modules a source imports, and whether at its top level."""
    tree = ast.parse(source)
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in top
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, id(node) in top
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) in top


def layer_of(module: str) -> tuple[str, int] | None:
    """Package and layer number of a module, None for one that is not ours or a front door."""
    package, _, rest = module.partition(".")
    layers = {"fleet": FLEET_LAYERS, "topology": TOPOLOGY_LAYERS}.get(package)
    if layers is None or not rest:
        return None
    head = rest.partition(".")[0]
    for number, names in enumerate(layers):
        if head in names:
            return package, number
    return None


def violations(path: str, source: str) -> list[str]:
    """What a module imports that its layer forbids."""
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    mine = layer_of(module)
    found = []
    for name, _ in imports_of(source):
        head = name.partition(".")[0]
        if head in ONLY_IMPORTER and path != ONLY_IMPORTER[head]:
            found.append(f"{path} imports {head}; only {ONLY_IMPORTER[head]} may")
        if mine is None:
            continue
        theirs = layer_of(name)
        if mine[0] == "fleet" and head == "topology":
            found.append(f"{path} imports {name}; fleet never imports topology")
        elif mine[0] == "topology" and head == "fleet" and not is_front_door(name):
            found.append(f"{path} imports {name}; only fleet's front door is open")
        elif theirs is not None and theirs[0] == mine[0]:
            found += climb(path, module, name, mine[1], theirs[1])
    return sorted(set(found))


def is_front_door(name: str) -> bool:
    """Whether topology may import this of fleet: the package's own names and the shared modules."""
    parts = name.split(".")
    if ".".join(parts[:2]) in FRONT_DOOR:
        return True
    return (
        len(parts) <= 2
        and not (Path("fleet") / f"{parts[-1]}.py").exists()
        and not (Path("fleet") / parts[-1]).is_dir()
    )


def climb(path: str, module: str, name: str, mine: int, theirs: int) -> list[str]:
    """An import that goes up a layer, or sideways to a sibling."""
    ours, other = (".".join(m.split(".")[:2]) for m in (module, name))
    if theirs < mine:
        return [f"{path} imports {name}, which is above it"]
    if theirs == mine and ours != other and (ours, other) not in SAME_LAYER_ALLOWED:
        return [f"{path} imports {name}, its sibling"]
    return []


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import one another at their top level, one list for each knot."""
    import networkx as nx

    return [
        sorted(knot)
        for knot in nx.strongly_connected_components(nx.DiGraph(graph))
        if len(knot) > 1
    ]


def sources(root: Path) -> dict[str, str]:
    """Path and text of every shipped module."""
    files = [*root.glob("fleet/**/*.py"), *root.glob("topology/**/*.py")]
    return {file.relative_to(root).as_posix(): file.read_text() for file in sorted(files)}


def test_every_module_stands_in_the_layer_table(root: Path) -> None:
    for path in sources(root):
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert "." not in module or layer_of(module) is not None, f"{path} has no layer"


@pytest.mark.parametrize(
    ("name", "layers"), [("topology", TOPOLOGY_LAYERS), ("fleet", FLEET_LAYERS)]
)
def test_the_readme_prints_the_layer_table(
    root: Path, name: str, layers: tuple[set[str], ...]
) -> None:
    block = (root / "README.md").read_text().partition(f"\n{name}: ")[2]
    table = " ".join(block.split("```")[0].split("\nfleet: ")[0].split())
    printed = [set(part.split(" | ")) for part in table.split(" > ")]
    if name == "topology":
        assert printed.pop() == {"fleet's front door"}
    assert printed == list(layers)


def test_imports_go_down_only(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    found = [line for path, text in sources(root).items() for line in violations(path, text)]
    assert found == []


def test_there_is_no_import_cycle(root: Path) -> None:
    names = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): text
        for path, text in sources(root).items()
    }
    graph = {
        module: {name for name, top in imports_of(text) if top and name in names}
        for module, text in names.items()
    }
    assert cycles(graph) == []


def foreign_imports(source: str) -> list[str]:
    """What a module of the probe imports that a bare python3 of a far host does not have."""
    ours = {"fleet.probe", "pynvml"}
    return [
        name
        for name, _ in imports_of(source)
        if name.partition(".")[0] not in sys.stdlib_module_names
        and ".".join(name.split(".")[:2]) not in ours
    ]


def test_the_probe_imports_only_the_standard_library_and_the_binding(root: Path) -> None:
    probe = {path: text for path, text in sources(root).items() if "/probe/" in path}
    assert probe
    for path, text in probe.items():
        assert foreign_imports(text) == [], path
        ast.parse(text, feature_version=(3, 6))


def test_a_foreign_import_of_the_probe_is_found() -> None:
    assert foreign_imports("import os\nimport pynvml\nfrom fleet.probe import plan") == []
    assert foreign_imports("from fleet.fields import Absence") == [
        "fleet.fields",
        "fleet.fields.Absence",
    ]
    assert foreign_imports("import pydantic") == ["pydantic"]


def test_the_command_lines_import_nothing_heavy(root: Path) -> None:
    for path in QUICK_MODULES:
        heavy = {
            n
            for n, top in imports_of((root / path).read_text())
            if top and n.partition(".")[0] in HEAVY
        }
        assert heavy == set(), f"{path} loads {heavy} at its top"


@pytest.mark.parametrize(
    ("path", "source", "part"),
    [
        ("fleet/model.py", "from fleet.merge import merge_snapshots", "above it"),
        ("fleet/shapes.py", "import fleet.sources.nvml", "above it"),
        ("fleet/check.py", "from fleet.merge import natural_key", "sibling"),
        ("fleet/store.py", "from topology.words import View", "never imports topology"),
        ("topology/fabric/graph.py", "from topology.latency import cost", "above it"),
        (
            "topology/collective/replay.py",
            "def f():\n    from topology.plan import moves",
            "above it",
        ),
        ("topology/plan/moves.py", "from fleet.model import FleetMap", "front door"),
        ("topology/plan/moves.py", "from fleet import model", "front door"),
        ("fleet/agent.py", "import pynvml", "only fleet/probe/binding.py may"),
        ("topology/diagram/layout.py", "from matplotlib.figure import Figure", "only topology"),
    ],
)
def test_a_planted_violation_is_found(
    path: str, source: str, part: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert any(part in line for line in violations(path, source)), violations(path, source)


def test_what_the_table_allows_is_not_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    allowed = "from fleet import FleetMap\nfrom fleet.units import text_from_rate\nimport numpy"
    assert violations("topology/fabric/routes.py", allowed) == []


def test_a_planted_cycle_is_found() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
