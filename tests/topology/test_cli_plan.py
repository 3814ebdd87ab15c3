"""``topology plan`` as a person types it, and the installed scripts in pipes."""

from pathlib import Path

import pytest

from tests.topology.command import ALL_REDUCE, refused, shell, simulate, topology, write_maps


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_maps(tmp_path_factory.mktemp("maps"))


# plan.


def test_plan_prints_a_table_or_json(maps: Path) -> None:
    words = ("plan", maps / "dgx.json", maps / "work.yaml", "--trials", "500")
    text = topology(*words)
    assert text.code == 0
    assert text.err == ""
    assert "verdict: scale in" in text.out
    assert "scale in: the same work in fewer nodes" in text.out
    document = topology(*words, "--json").document
    assert document["verdict"] == "scale_in"
    assert [row["move"] for row in document["candidates"]] == [
        "one_domain",
        "fewest_nodes",
        "balanced",
        "same_leaf",
        "spread",
    ]


def test_plan_from_options_is_the_plan_from_a_file(maps: Path) -> None:
    words = ("plan", maps / "dgx.json", "--trials", "500", "--json")
    by_options = topology(*words, *ALL_REDUCE, "--gpus", "8").document
    by_file = topology(*words, maps / "work.yaml").document
    assert by_options.pop("workload") == {**by_file.pop("workload"), "name": "from the options"}
    assert by_options == by_file


def test_options_win_over_the_workload_file(maps: Path) -> None:
    words = ("plan", maps / "dgx.json", maps / "work.yaml", "--trials", "500", "--json")
    change = ("--gpus", "4", "--size", "8", "--target-p99", "1s", "--collective", "broadcast")
    workload = topology(*words, *change).document["workload"]
    assert (workload["gpus"], workload["size_bytes"], workload["target_p99_s"]) == (4, 8, 1.0)
    assert (workload["collective"], workload["name"]) == ("broadcast", "w")


def test_plan_takes_the_workload_from_stdin(maps: Path) -> None:
    stdin = (maps / "work.yaml").read_bytes()
    words = ("plan", maps / "dgx.json", "--trials", "200", "--json")
    piped = topology(*words, "-", stdin=stdin)
    assert piped.out == topology(*words, maps / "work.yaml").out


def test_plan_writes_a_placement_that_simulates_to_the_same(maps: Path, tmp_path: Path) -> None:
    place = tmp_path / "placement.txt"
    words = (
        "plan",
        maps / "busy.json",
        *ALL_REDUCE,
        "--gpus",
        "8",
        "--trials",
        "500",
        "--seed",
        "4",
    )
    planned = topology(*words, "-o", place, "--json").document["chosen"]
    assert [line.split() for line in place.read_text().splitlines()] == [
        [host, str(slot)] for host, slot in planned["placement"]
    ]
    again = simulate(maps, "--placement", place, "--seed", "4", "--json", name="busy.json").document
    for name in ("nodes", "domains", "p50_s", "p99_s", "algorithm", "trials"):
        assert again[name] == planned[name]


def test_placement_on_stdout_is_all_there_is_on_stdout(maps: Path) -> None:
    words = ("plan", maps / "dgx.json", maps / "work.yaml", "--trials", "200", "-o", "-")
    for done in (topology(*words), topology(*words, "--json")):
        assert done.out.splitlines() == [f"h100-001 {slot}" for slot in range(8)]
        assert done.err.startswith("verdict: scale in")


def test_target_that_none_keeps_is_exit_1_and_nothing_is_written(
    maps: Path, tmp_path: Path
) -> None:
    words = ("plan", maps / "dgx.json", maps / "work.yaml", "--trials", "500")
    target = ("--target-p99", "1us", "-o", tmp_path / "place.txt")
    done = topology(*words, *target)
    assert done.code == 1
    assert "verdict: no candidate keeps p99 within 1 us" in done.out
    assert not (tmp_path / "place.txt").exists()
    document = topology(*words, *target, "--json")
    assert document.code == 1
    assert document.document["chosen"] is None
    on_stdout = topology(*words, "--target-p99", "1us", "-o", "-")
    assert (on_stdout.code, on_stdout.out) == (1, "")
    assert "no candidate keeps p99" in on_stdout.err


def test_65_of_64_gpus_is_exit_1(maps: Path) -> None:
    line = refused(topology("plan", maps / "dgx8.json", *ALL_REDUCE, "--gpus", "65"), code=1)
    assert "65 GPUs asked, 64 free of 64; ask for 64 or fewer" in line


def test_nothing_that_links_join_is_exit_1(maps: Path) -> None:
    line = refused(topology("plan", maps / "bare.json", *ALL_REDUCE, "--gpus", "16"), code=1)
    assert "no candidate can run" in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "collective, size_bytes, gpus: no workload; give a workload file"),
        (("--size", "8"), "collective, gpus: no workload"),
        ((*ALL_REDUCE, "--gpus", "8", "--size", "0"), "--size: '0' is nothing; give at"),
        ((*ALL_REDUCE, "--gpus", "8", "--target-p99", "0us"), "--target-p99: '0us' is nothing"),
        (
            (*ALL_REDUCE, "--gpus", "8", "--target-p99", "30"),
            "--target-p99: '30' has no known unit",
        ),
        ((*ALL_REDUCE, "--gpus", "8", "--target-p99", "8KiB"), "--target-p99: '8KiB' has no known"),
        ((*ALL_REDUCE, "--gpus", "8", "--size", "8Q"), "--size: '8Q' has the unit 'Q'"),
        (("no/such.yaml",), "no/such.yaml: no such file"),
    ],
)
def test_workload_that_cannot_be_is_refused(maps: Path, words: tuple[str, ...], told: str) -> None:
    assert refused(topology("plan", maps / "dgx.json", *words)).startswith(told)


def test_option_that_spoils_a_good_file_is_refused(maps: Path) -> None:
    words = ("plan", maps / "dgx.json", maps / "work.yaml", "--size", "0")
    assert refused(topology(*words)).startswith("--size: '0' is nothing")


def test_placement_into_no_folder_is_refused(maps: Path) -> None:
    words = (
        "plan",
        maps / "dgx.json",
        maps / "work.yaml",
        "--trials",
        "200",
        "-o",
        "no/such/x.txt",
    )
    assert refused(topology(*words)).startswith("no/such/x.txt: cannot be written")


# The installed scripts.


def test_same_seed_gives_equal_bytes_in_another_process(maps: Path) -> None:
    options = "--collective all_reduce --size 1MiB --gpus 8 --trials 300 --seed 3 --json"
    for command in ("simulate", "plan"):
        here = topology(command, maps / "dgx.json", *options.split())
        there = shell(f"PYTHONHASHSEED=7 topology {command} dgx.json {options}", maps)
        assert (there.code, there.err) == (0, "")
        assert there.out == here.out


def test_inventory_pipes_into_plan(maps: Path) -> None:
    inventory = "fleet inventory --synthetic 'model:dgx-h100 node:2 busy:3' -o -"
    done = shell(f"{inventory} | topology plan - work.yaml --trials 200 --json", maps)
    assert done.code == 0, done.err
    assert done.document["verdict"] == "scale_out"
    assert done.document["crossing"]["largest_free_domain"] == 5


def test_a_refusal_of_the_script_is_one_line_without_traceback(maps: Path) -> None:
    done = shell("topology path bare.json h100-001:0 h100-002:0", maps)
    assert refused(done, code=1) == refused(
        topology("path", maps / "bare.json", "h100-001:0", "h100-002:0"), code=1
    )
