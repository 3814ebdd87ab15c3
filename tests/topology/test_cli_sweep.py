"""``topology sweep`` as a person types it."""

from pathlib import Path

import pytest

from tests.topology.command import refused, topology, write_maps
from topology.cli_sweep import sizes_of
from topology.errors import WorkloadError

KIB = 1024


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_maps(tmp_path_factory.mktemp("maps"))


def words(maps: Path, *names: str) -> tuple[str | Path, ...]:
    files = (maps / name for name in names)
    return ("sweep", *files, "--collective", "all_reduce", "--trials", "400")


def test_sweep_prints_a_row_for_each_size(maps: Path) -> None:
    done = topology(*words(maps, "dgx.json", "dgx8.json"), "--sizes", "8,64KiB", "--gpus", "16")
    assert (done.code, done.err) == (0, "")
    head, one, two, header, first, second, close, needed = done.out.splitlines()
    assert head == "all_reduce over 16 ranks, launched by process; noise dedicated"
    assert needed == "p99.9 needs 3,688 trials or more"
    assert one == "dgx: 2 nodes, 2 NVLink domains, nccl stack"
    assert two.startswith("dgx8: 2 nodes")
    assert header.split()[:2] == ["size", "dgx"]
    assert (first.strip()[:3], second.strip()[:6]) == ("8 B", "64 KiB")
    assert close.startswith("p99 of dgx8: 1.00 times that of dgx")


def test_the_same_map_is_simulated_as_simulate_does(maps: Path) -> None:
    swept = topology(*words(maps, "dgx.json"), "--sizes", "64KiB", "--json").document
    alone = topology(
        *("simulate", maps / "dgx.json", "--collective", "all_reduce", "--size", "64KiB"),
        *("--trials", "400", "--json"),
    ).document
    (row,) = swept["rows"]
    assert (row["size_bytes"], row["summaries"]) == (65536, [alone])
    assert swept["kind"] == "size_sweep"


def test_options_reach_the_simulation(maps: Path) -> None:
    asked = ("--algorithm", "ring", "--stack", "wire", "--noise", "shared", "--seed", "3")
    document = topology(*words(maps, "dgx.json"), "--sizes", "8", *asked, "--json").document
    (summary,) = document["rows"][0]["summaries"]
    told = [summary[key] for key in ("algorithm", "stack", "noise", "seed", "trials")]
    assert told == ["ring", "wire", "shared", 3, 400]


def test_the_picture_is_written_beside_the_table(maps: Path, tmp_path: Path) -> None:
    plot = tmp_path / "sweep.svg"
    done = topology(*words(maps, "dgx.json"), "--sizes", "8,64", "--noise", "none", "--plot", plot)
    assert done.err == f"wrote {plot}\n"
    assert "<svg" in plot.read_text()


def test_a_map_that_is_too_small_is_named(maps: Path) -> None:
    line = refused(topology(*words(maps, "dgx8.json", "dgx.json"), "--gpus", "17"))
    assert line == "dgx: --gpus: 17 ranks asked, the map has 16; ask for 16 or fewer"


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ("64,8", "--sizes: 8 bytes after 64; let sizes ascend"),
        ("8,8", "--sizes: 8 bytes after 8; let sizes ascend"),
        ("1MiB..8", "--sizes: '1MiB..8' falls; write 8..1MiB"),
        ("8,64Q", "--sizes: '64Q' has the unit 'Q'"),
        ("8..1Q", "--sizes: '1Q' has the unit 'Q'"),
        ("0", "--sizes: '0' is nothing"),
        ("", "--sizes: '' is not a size"),
        ("8,", "--sizes: '' is not a size"),
    ],
)
def test_sizes_that_cannot_be_are_refused(maps: Path, sizes: str, told: str) -> None:
    assert refused(topology(*words(maps, "dgx.json"), "--sizes", sizes)).startswith(told)


@pytest.mark.parametrize("plot", ["sweep.txt", "sweep", "-"])
def test_a_picture_that_cannot_be_is_refused_before_the_runs(maps: Path, plot: str) -> None:
    line = refused(topology(*words(maps, "dgx.json"), "--plot", plot))
    assert ".png, .svg, .pdf" in line


def test_five_maps_have_no_picture(maps: Path) -> None:
    line = refused(topology(*words(maps, *["dgx.json"] * 5), "--plot", "a.png"))
    assert line == "--plot: 5 scenarios in one picture; show one to 4"


def test_stdin_is_read_once() -> None:
    line = refused(topology("sweep", "-", "-", "--collective", "all_reduce"))
    assert line.startswith("-: stdin is asked for twice")


def test_maps_of_one_name_are_told_apart_by_their_paths(maps: Path) -> None:
    asked = words(maps, "dgx.json", "dgx.json.gz")
    document = topology(*asked, "--sizes", "8", "--noise", "none", "--json").document
    assert document["maps"] == [str(maps / "dgx.json"), str(maps / "dgx.json.gz")]


def test_a_range_goes_up_by_the_factor_and_ends_at_its_end() -> None:
    assert sizes_of("--sizes", "8..4KiB", factor=8) == (8, 64, 512, 4 * KIB)
    assert sizes_of("--sizes", "8..1KiB", factor=8) == (8, 64, 512, KIB)
    assert sizes_of("--sizes", "8..64,1MiB", factor=2) == (8, 16, 32, 64, KIB * KIB)
    assert sizes_of("--sizes", "8..8", factor=2) == (8,)
    assert len(sizes_of("--sizes", "8..1GiB", factor=8)) == 10


def test_too_many_sizes_are_refused() -> None:
    with pytest.raises(WorkloadError, match="at most 64, or a larger --factor"):
        sizes_of("--sizes", ",".join(map(str, range(1, 67))), factor=2)
