"""The ``topology`` command as a person types it: output, exit codes, one line for each refusal."""

import subprocess
import sys
from pathlib import Path

import pytest

from fleet import load_fleet
from tests.topology.command import ALL_REDUCE, refused, simulate, topology, write_maps
from topology.latency.report import SCHEMA_VERSION

COMMANDS = ("show", "path", "figures", "simulate", "plan", "draw", "schema")


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_maps(tmp_path_factory.mktemp("maps"))


# show, figures, schema.


def test_show_says_what_the_fabric_consists_of(maps: Path) -> None:
    done = topology("show", maps / "dgx.json")
    assert done.code == 0
    assert "2 nodes, 16 GPUs, 16 free" in done.out
    assert "ib_ndr_host" in done.out
    document = topology("show", maps / "dgx.json", "--json").document
    assert document["kind"] == "fabric"
    assert (document["nodes"], document["gpus"]) == (2, 16)
    assert document["nvlink_domains"] == [{"size": 8, "count": 2}]


def test_figures_have_source_and_confidence_each() -> None:
    document = topology("figures", "--json").document
    assert document["schema_version"] == SCHEMA_VERSION
    link, stack = document["link"], document["stack"]
    for row in (*link["route_class"].values(), *link["edge"].values()):
        assert set(row["sources"]) <= set(link["source"])
        assert row["sources"]
    for row in (*stack["protocol"].values(), *stack["launch"].values(), stack["pipeline"]):
        assert set(row["sources"]) <= set(stack["source"])
        assert row["confidence"] in ("high", "medium", "low", "guess")
    text = topology("figures").out
    for name in (*link["route_class"], *link["edge"], *link["source"], "most pieces"):
        assert name in text


def test_schema_is_that_of_a_workload() -> None:
    assert topology("schema").document["title"] == "Workload"


# path.


def test_path_adds_up_hop_by_hop(maps: Path) -> None:
    document = topology("path", maps / "dgx.json", "h100-001:0", "h100-002:gpu3", "--json").document
    hops_s = sum(hop["alpha_s"] for hop in document["hops"])
    assert document["endpoints_s"] + hops_s == pytest.approx(document["alpha_s"])
    assert document["hops"][0]["source"] == "h100-001:gpu0"
    assert document["hops"][-1]["destination"] == "h100-002:gpu3"
    text = topology("path", maps / "dgx.json", "h100-001:0", "h100-002:gpu3")
    assert text.code == 0
    assert document["route_class"] in text.out
    assert len(text.out.splitlines()) >= len(document["hops"]) + 3


def test_path_takes_a_uuid(maps: Path) -> None:
    uuid = load_fleet(maps / "dgx.json").nodes[1].gpus[3].uuid
    assert uuid is not None
    document = topology("path", maps / "dgx.json", "h100-001:0", uuid, "--json").document
    assert document["destination"] == "h100-002:3"


def test_path_without_links_is_one_line_and_exit_1(maps: Path) -> None:
    line = refused(topology("path", maps / "bare.json", "h100-001:0", "h100-002:0"), code=1)
    assert line.startswith("h100-001:0 -> h100-002:0: no_cable: ")
    assert topology("path", maps / "bare.json", "h100-001:0", "h100-001:1").code == 0


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("nobody:0", "no host 'nobody' in this map; it has h100-001, say"),
        ("h100-02:0", "no host 'h100-02' in this map; it has h100-002, say"),
        ("h100-001", "'h100-001' is no endpoint of this map; write host:slot, such as h100-001:0"),
        ("h100-001:٣", "'h100-001:٣' is no endpoint"),
        ("h100-001:x", "'h100-001:x' is no endpoint"),
        ("h100-001:8", "h100-001 has no slot 8; it has 0, 1, 2"),
        ("", "'' is no endpoint"),
        ("GPU-none", "'GPU-none' is no endpoint"),
    ],
)
def test_path_to_what_the_map_lacks_is_refused(maps: Path, end: str, told: str) -> None:
    assert told in refused(topology("path", maps / "dgx.json", "h100-001:0", end))
    assert told in refused(topology("path", maps / "dgx.json", end, "h100-001:0"))


def test_path_to_itself_is_refused(maps: Path) -> None:
    refused(topology("path", maps / "dgx.json", "h100-001:0", "h100-001:0"), code=1)


# simulate.


def test_simulate_prints_text_or_json(maps: Path) -> None:
    text = simulate(maps)
    assert text.code == 0
    assert text.err == ""
    assert "all_reduce of 64 KiB over 16 ranks on 2 nodes" in text.out
    document = simulate(maps, "--json").document
    assert document["kind"] == "latency_summary"
    assert (document["ranks"], document["trials"], document["seed"]) == (16, 500, 0)


def test_every_option_of_simulate_reaches_the_simulation(maps: Path) -> None:
    words = "--gpus 6 --placement spread --algorithm ring --protocol ll128 --launch thread"
    more = "--stack nccl --noise contended --seed 9"
    document = simulate(maps, *words.split(), *more.split(), "--json").document
    told = {
        "ranks": 6,
        "nodes": 2,
        "algorithm": "ring",
        "protocol": "ll128",
        "launch": "thread",
        "stack": "nccl",
        "noise": "contended",
        "seed": 9,
        "trials": 500,
        "size_bytes": 65_536,
    }
    assert {name: document[name] for name in told} == told
    assert simulate(maps, "--ranks", "6", "--json").document["ranks"] == 6


def test_map_from_stdin_and_packed_gives_the_same(maps: Path) -> None:
    plain = simulate(maps, "--json").out
    assert simulate(maps, "--json", name="dgx.json.gz").out == plain
    piped = topology(
        "simulate", "-", *ALL_REDUCE, "--trials", "500", "--json",
        stdin=(maps / "dgx.json").read_bytes(),
    )  # fmt: skip
    assert piped.out == plain


def test_unreachable_ranks_are_one_line_and_exit_1(maps: Path) -> None:
    assert "no_cable" in refused(simulate(maps, name="bare.json"), code=1)


def test_more_ranks_than_there_are_is_exit_2(maps: Path) -> None:
    line = refused(simulate(maps, "--gpus", "65", name="dgx8.json"))
    assert line == "--gpus: 65 ranks asked of 64; ask for 64 or fewer"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--size", "0"), "--size: '0' is nothing; give at least one byte"),
        (("--size", "5MB/s"), "--size: '5MB/s' is not a size such as 512, 64KiB, 1MiB"),
        (("--size", "1M"), "--size: '1M' has the unit 'M'; use one of B, kB"),
        (("--size", "nan"), "--size: 'nan' is not a size"),
        (("--size=-1",), "--size: '-1' is not a size"),
        (("--size", "1e999"), "--size: '1e999' is "),
        (("--size", "0.5"), "--size: '0.5' is not a whole number of bytes"),
        (("--placement", "no/such.txt"), "no/such.txt: no such file"),
        (("--algorithm", "pairwise"), "pairwise: pairwise does no all_reduce; use ring"),
        (("--algorithm", "nvls"), "nvls: the ranks lie in 2 NVLink domains"),
        (("--stack", "wire", "--protocol", "ll"), "--protocol ll: the wire stack has no protocols"),
    ],
)
def test_option_that_cannot_be_is_named(maps: Path, words: tuple[str, ...], told: str) -> None:
    assert refused(simulate(maps, *words)).startswith(told)


@pytest.mark.parametrize(
    "words",
    [
        ("--collective", "allreduce"),
        ("--algorithm", "magic"),
        ("--gpus", "0"),
        ("--gpus", "many"),
        ("--trials", "0"),
        ("--seed", "-1"),
        ("--no-such-option",),
        ("one", "word", "too", "many"),
    ],
)
def test_word_outside_its_set_is_usage_and_exit_2(maps: Path, words: tuple[str, ...]) -> None:
    assert refused(simulate(maps, *words)).endswith("; see topology simulate --help")


def test_stdin_is_read_once(maps: Path) -> None:
    done = topology("simulate", "-", *ALL_REDUCE, "--placement", "-")
    assert "stdin is asked for twice" in refused(done)
    assert "stdin is asked for twice" in refused(topology("plan", "-", "-"))


def test_placement_file_gives_ranks_in_its_order(maps: Path, tmp_path: Path) -> None:
    path = tmp_path / "place.txt"
    path.write_text("# first node\nh100-002 7\n\nh100-001 0  # last\n")
    assert simulate(maps, "--placement", path, "--json").document["ranks"] == 2
    assert simulate(maps, "--placement", path, "--gpus", "2").code == 0
    line = refused(simulate(maps, "--placement", path, "--gpus", "3"))
    assert line == f"{path}: 2 lines for 3 ranks; make them agree"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("h100-001\n", "line 1: 'h100-001'; write: host slot"),
        ("h100-001 0\nh100-001 x\n", "line 2: 'h100-001 x'; write: host slot"),
        ("h100-001 0 0\n", "line 1: "),
        ("h100-001 0\n\nnobody 0\n", "line 3: no host 'nobody' in this map"),
        ("h100-001 8\n", "line 1: h100-001 has no slot 8; it has 0, 1"),
        ("h100-001 0\nh100-001 0\n", "line 2: h100-001:0 stands already on line 1"),
        ("", "no ranks; write one host and slot a line"),
        ("\x00\xff", "line 1: "),
    ],
)
def test_placement_file_with_a_fault_names_its_line(
    maps: Path, tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "place.txt"
    path.write_bytes(text.encode("latin-1"))
    assert refused(simulate(maps, "--placement", path)).startswith(f"{path}: {told}")


# Maps that are none.


@pytest.mark.parametrize("command", ["show", "path", "simulate", "plan"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\x00", "not JSON"),
        (b"{}", "no document of ours"),
        (b'{"kind": "fleet_map", "schema_version": 99}', "schema_version 99 is newer"),
        (b'{"kind": "fleet_map", "schema_version": 1, "node": []}', "node"),
    ],
)
def test_file_that_is_no_map_is_refused(
    tmp_path: Path, command: str, content: bytes | None, told: str
) -> None:
    path = tmp_path / "map.json"
    if content is not None:
        path.write_bytes(content)
    words = {"path": ("a:0", "b:0"), "simulate": ALL_REDUCE, "plan": (*ALL_REDUCE, "--gpus", "2")}
    line = refused(topology(command, path, *words.get(command, ())))
    assert line.startswith(f"{path}: ")
    assert told in line


def test_empty_map_is_shown_and_carries_nothing(maps: Path) -> None:
    assert topology("show", maps / "empty.json").code == 0
    assert "the map has none" in refused(simulate(maps, "--gpus", "2", name="empty.json"))
    refused(simulate(maps, name="empty.json"))
    refused(topology("path", maps / "empty.json", "a:0", "b:0"))
    line = refused(topology("plan", maps / "empty.json", *ALL_REDUCE, "--gpus", "1"), code=1)
    assert "0 free of 0; free some first" in line


# Help.


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_ends_well(command: str) -> None:
    for word in ("--help", "-h"):
        done = topology(command, word)
        assert done.code == 0
        assert f"Usage: topology {command}" in done.out


def plain_help(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Help without boxes and line breaks."""
    monkeypatch.setenv("COLUMNS", "200")
    text = topology(command, "--help").out
    return " ".join(text.replace("│", " ").split())


def test_help_names_units_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = plain_help("simulate", monkeypatch)
    for part in (
        "default: all there are",
        "Default: nccl on NVIDIA GPUs, rccl on AMD",
        "default: 368, which a p99 needs, to 10000 as seconds allow",
        "8 (bytes), 64KiB, 1GB",
        "[default: pack]",
        "[default: dedicated]",
        "[default: 0]",
        "host slot",
        "process|threads|thread|graph|eager",
    ):
        assert part in simulation, part
    planning = plain_help("plan", monkeypatch)
    for part in ("e.g. 30us", "[default: p99]", "8 (bytes), 64KiB, 1GB", "'-' is stdout", "YAML"):
        assert part in planning, part
    assert "all there are" not in planning, "a plan must be told how many"


def test_help_lists_every_command() -> None:
    done = topology("--help")
    assert done.code == 0
    assert all(command in done.out for command in COMMANDS)


def test_version_is_told() -> None:
    assert topology("--version").out.startswith("fleetmap ")


@pytest.mark.parametrize("words", [("--help",), ("plan", "--help")])
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    """Typer itself loads pydantic for the options of one command."""
    program = (
        "import sys; from topology.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'pydantic', 'networkx', 'matplotlib', 'pynvml', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() in ("[]", "['pydantic']" if len(words) > 1 else "[]")


def test_only_debug_shows_where_it_happened(maps: Path) -> None:
    done = topology("--debug", "show", maps / "none.json")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("error: ")
    refused(topology("show", maps / "none.json"))


def test_drawing_is_a_picture_or_json_or_both(maps: Path, tmp_path: Path) -> None:
    told = topology("draw", maps / "dgx.json", "--json")
    assert told.document["kind"] == "drawing"
    both = topology("draw", maps / "dgx.json", "--json", "-o", tmp_path / "racks.svg")
    assert both.document == told.document
    assert (tmp_path / "racks.svg").read_bytes().startswith(b"<?xml")
    nothing = topology("draw", maps / "dgx.json")
    assert (nothing.code, nothing.err.startswith("error: -o: no picture is asked for")) == (2, True)
    twice = topology("draw", maps / "dgx.json", "--json", "-o", "-")
    assert (twice.code, "stdout is asked for twice" in twice.err) == (2, True)
