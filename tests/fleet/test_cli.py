import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fleet.cli import app, main
from fleet.errors import ExpectedError
from fleet.model import FleetMap
from fleet.store import bytes_from_document, load_fleet, save_fleet
from tests.commands import run_here
from tests.factories import fleet_of, make_fleet, make_gpu, make_snapshot, make_wiring, replaced

SCRIPT = Path(sys.executable).with_name("fleet")
SPEC = "model:dgx-h100 node:2"
BROKEN = make_fleet(
    make_snapshot("node1"),
    make_snapshot(
        "node2",
        replaced(make_wiring(), "gpus", (make_gpu(0, pcie_width=8), *make_wiring().gpus[1:])),
    ),
)


def fleet_script(
    *arguments: str | Path, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """The installed console script, in a process of its own."""
    return subprocess.run(
        [SCRIPT, *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command that goes well or ends with a code of its own."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, ExpectedError):
        return result.exception.exit_code, result.stdout, f"error: {result.exception}"
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    save_fleet(BROKEN, tmp_path / "broken.json")
    return tmp_path / "broken.json"


def test_script_prints_a_table_on_stdout_and_nothing_else() -> None:
    done = fleet_script("inventory", "--synthetic", SPEC)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "2 nodes, 16 GPUs, 1 shape"
    assert lines[2].split()[:3] == ["hosts", "nodes", "GPUs"]
    assert lines[3].split()[:3] == ["h100-[001-002]", "2", "8"]
    assert b"\x1b" not in done.stdout


def test_scripts_pipe_a_map_from_one_to_the_next() -> None:
    made = fleet_script("inventory", "--synthetic", SPEC, "-o", "-")
    assert made.stdout == bytes_from_document(fleet_of(SPEC))
    checked = fleet_script("check", "-", stdin=made.stdout)
    assert (checked.returncode, checked.stdout) == (0, b"nothing found\n")
    packed = run_here(
        "fleet", "inventory", "--from", "-", "--json", stdin=gzip.compress(made.stdout)
    )
    assert FleetMap.model_validate_json(packed.out) == fleet_of(SPEC)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["schema"], ["inventory", "--synthetic", SPEC], ["--help"]])
def test_reader_that_leaves_is_no_finding_and_no_traceback(
    words: list[str], unbuffered: str
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer) as nobody_reads:
        done = subprocess.run(
            [SCRIPT, *words],
            stdout=nobody_reads,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["schema"], ["inventory", "--synthetic", SPEC, "-o", "-"]])
def test_full_disk_under_stdout_is_one_line(words: list[str], unbuffered: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [SCRIPT, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 2
    assert done.stderr == b"error: stdout: cannot be used (No space left on device)\n"


def test_stdout_by_its_device_name_is_a_pipe_like_another() -> None:
    done = fleet_script("inventory", "--synthetic", SPEC, "-o", "/dev/stdout")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b'{"kind":"fleet_map"')
    assert os.path.islink("/dev/stdout")


def test_script_refuses_a_wrong_spec_in_one_line() -> None:
    done = run_here("fleet", "inventory", "--synthetic", "model:dgx-h100 nodes:3")
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert line.startswith("error: SPEC: 'nodes:3' is no word of a SPEC; did you mean node:?")


def test_script_shows_a_traceback_with_debug_alone() -> None:
    done = run_here("fleet", "--debug", "check", "none.json")
    assert done.code == 2
    assert done.err.startswith("Traceback")
    assert done.err.endswith("error: none.json: no such file; check the path\n")
    assert run_here("fleet", "check", "none.json").err.count("\n") == 1


def test_script_tells_its_version() -> None:
    from importlib.metadata import version

    done = run_here("fleet", "--version")
    assert done.out == f"fleetmap {version('fleetmap')}\n"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['fleet', '--help']\n"
        "from fleet.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'numpy', 'networkx', 'matplotlib', 'pynvml', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == b"[]\n"
    assert b"inventory" in done.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["--help"], ["inventory", "check", "schema", "--debug", "--version"]),
        (
            ["inventory", "--help"],
            ["--from", "--synthetic", "--record", "--host", "--json", "model:dgx-h100", "'-'"],
        ),
        (["check", "-h"], ["MAP", ".json.gz", "exit 1", "--json"]),
        (["schema", "--help"], ["fleet_map", "node_snapshot", "default: fleet_map"]),
    ],
)
def test_help_names_options_and_defaults(command: list[str], words: list[str]) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert result.exit_code == 0
    assert [word for word in words if word not in result.stdout] == []


def test_json_is_the_map_itself() -> None:
    code, out, err = run("inventory", "--synthetic", SPEC, "--json")
    assert (code, err) == (0, "")
    assert FleetMap.model_validate_json(out) == fleet_of(SPEC)
    assert json.loads(out)["schema_version"] == 1


def test_map_on_stdout_is_not_followed_by_a_table() -> None:
    code, out, _ = run("inventory", "--synthetic", SPEC, "-o", "-", "--json")
    assert code == 0
    assert FleetMap.model_validate_json(out) == fleet_of(SPEC)


@pytest.mark.parametrize("name", ["map.json", "map.json.gz"])
def test_output_file_holds_the_map_and_the_table_is_printed_too(tmp_path: Path, name: str) -> None:
    code, out, _ = run("inventory", "--synthetic", SPEC, "-o", tmp_path / name)
    assert code == 0
    assert load_fleet(tmp_path / name) == fleet_of(SPEC)
    assert out.startswith("2 nodes, 16 GPUs")


def test_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.json.gz", "b.json.gz"):
        run("inventory", "--synthetic", SPEC, "-o", tmp_path / name)
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_record_replays_to_the_same_map(tmp_path: Path, root: Path) -> None:
    capture = root / "samples/captures/dgx-h100-01"
    code, first, err = run("inventory", "--from", capture, "--record", tmp_path / "kept", "--json")
    assert code == 0
    assert f"recorded 1 node in {tmp_path / 'kept'}" in err
    code, again, _ = run("inventory", "--from", tmp_path / "kept", "--json")
    assert code == 0
    assert {**json.loads(again), "conflicts": 0} == {**json.loads(first), "conflicts": 0}


def test_record_says_what_no_snapshot_holds(tmp_path: Path) -> None:
    code, _, err = run("inventory", "--synthetic", SPEC, "--record", tmp_path)
    assert code == 0
    assert "switches and cables are in no node's snapshot" in err


def test_named_map_is_inventoried_as_it_is(broken: Path) -> None:
    code, out, _ = run("inventory", "--from", broken, "--json")
    assert (code, FleetMap.model_validate_json(out)) == (0, BROKEN)


def test_part_that_is_refused_leaves_with_3_and_the_rest_is_written(
    tmp_path: Path, root: Path
) -> None:
    good = root / "samples/captures/l40s-8/nvidia-smi-q.xml"
    (tmp_path / "cut.xml").write_text("<system version='1'><cpu")
    (tmp_path / "notes.txt").write_text("no source at all")
    code, out, err = run(
        "inventory",
        *("--from", good, "--from", tmp_path / "cut.xml", "--from", tmp_path / "notes.txt"),
        *("-o", tmp_path / "map.json"),
    )
    assert code == 3
    assert out.startswith("1 node, 8 GPUs")
    assert f"refused {tmp_path / 'cut.xml'}: " in err
    assert f"refused {tmp_path / 'notes.txt'}: no source we know" in err
    assert load_fleet(tmp_path / "map.json").gpu_count == 8


def test_nothing_collected_leaves_with_4_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "cut.xml").write_text("<system version='1'><cpu")
    for paths in ((tmp_path / "cut.xml",), (tmp_path,)):
        code, out, err = run("inventory", "--from", *paths, "-o", tmp_path / "map.json")
        assert (code, out) == (4, "")
        assert "cut.xml: line 1: broken XML" in err
    assert [path.name for path in tmp_path.iterdir()] == ["cut.xml"]


def test_skipped_files_of_a_folder_are_talk_and_no_failure(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(bytes_from_document(make_snapshot()))
    (tmp_path / "README").write_text("hello")
    code, out, err = run("inventory", "--from", tmp_path)
    assert (code, err) == (0, f"skipped 1 file, no source: {tmp_path / 'README'}\n")
    assert out.startswith("1 node, 4 GPUs")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["inventory", "--from", "none.xml"], "none.xml: no such file; check the path"),
        (["inventory", "--synthetic", ""], "SPEC: no model"),
        (["inventory", "--synthetic", SPEC, "--from", "."], "exclude each other"),
        (["inventory", "--synthetic", SPEC, "--host", "a"], "exclude each other"),
        (["inventory", "--from", ".", "--host", "no host"], "--host: 'no host' is no host name"),
        (["inventory", "--synthetic", SPEC, "-o", "none/map.json"], "none/map.json: cannot be wri"),
        (["check", "none.json"], "none.json: no such file"),
        (["check", "."], ".: a folder, not a file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert part in err
    assert "\n" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b'{"kind":"fleet_map","schema_version":9}', "newer than this fleetmap"),
        (b"hello", "not JSON"),
        (bytes_from_document(make_snapshot()), "a node snapshot, not a fleet map"),
        (gzip.compress(b"{}" * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_map_that_cannot_be_read_leaves_with_2(tmp_path: Path, content: bytes, part: str) -> None:
    (tmp_path / "map.json").write_bytes(content)
    code, out, err = run("check", tmp_path / "map.json")
    assert (code, out) == (2, "")
    assert part in err


def test_findings_leave_with_1(broken: Path) -> None:
    code, out, err = run("check", broken)
    assert (code, err) == (1, "")
    header, row = out.splitlines()
    assert header.split() == ["severity", "code", "where", "what"]
    assert row.startswith("warning   pcie_width_differs  nodes[node2].gpus[0].pcie_width  8; its")


def test_findings_as_json_are_one_document(broken: Path) -> None:
    code, out, _ = run("check", broken, "--json")
    document = json.loads(out)
    assert code == 1
    assert (document["kind"], document["schema_version"]) == ("findings", 1)
    (finding,) = document["findings"]
    assert (finding["code"], finding["severity"]) == ("pcie_width_differs", "warning")
    assert finding["where"] == "nodes[node2].gpus[0].pcie_width"


def test_no_findings_as_json_are_an_empty_list(tmp_path: Path) -> None:
    save_fleet(fleet_of(SPEC), tmp_path / "map.json")
    code, out, _ = run("check", tmp_path / "map.json", "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])


def obeys(value: Any, schema: Any, definitions: Any) -> bool:
    """Whether a value keeps the part of JSON Schema that ours uses: types, keys, choices."""
    if "$ref" in schema:
        return obeys(value, definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return any(obeys(value, choice, definitions) for choice in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if schema["type"] == "object":
        properties = schema["properties"]
        return (
            isinstance(value, dict)
            and set(schema.get("required", ())) <= value.keys() <= properties.keys()
            and all(obeys(v, properties[k], definitions) for k, v in value.items())
        )
    if schema["type"] == "array":
        items = schema.get("items") or schema["prefixItems"][0]
        return isinstance(value, list) and all(obeys(v, items, definitions) for v in value)
    kinds: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "null": type(None),
    }
    return isinstance(value, kinds[schema["type"]])


@pytest.mark.parametrize("kind", ["fleet_map", "node_snapshot"])
def test_real_documents_keep_the_printed_schema(kind: str) -> None:
    code, out, _ = run("schema", kind)
    schema = json.loads(out)
    fleet, snapshot = (json.loads(bytes_from_document(d)) for d in (BROKEN, make_snapshot()))
    known, other = (fleet, snapshot) if kind == "fleet_map" else (snapshot, fleet)
    assert code == 0
    assert obeys(known, schema, schema["$defs"])
    assert not obeys(other, schema, schema["$defs"])
    assert not obeys(known | {"colour": "red"}, schema, schema["$defs"])
    assert not obeys(known | {"schema_version": 2}, schema, schema["$defs"])


def test_schema_of_the_map_is_printed_by_default() -> None:
    assert run("schema")[1] == run("schema", "fleet_map")[1]
    code, _, err = run("schema", "round")
    assert code == 2
    assert "round" in err


def test_entry_point_is_the_console_script() -> None:
    assert SCRIPT.exists()
    assert callable(main)
