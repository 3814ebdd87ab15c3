"""The command ``topology tail``, end to end."""

import json
from pathlib import Path

import pytest

from tests.topology.command import refused, topology, write_maps
from tests.topology.measured.nccl_texts import whole

SAMPLES = Path(__file__).parents[3] / "samples"
INSPECTOR = SAMPLES / "tails/inspector-8.jsonl.gz"
OSU = SAMPLES / "tails/osu-allreduce-8.txt"


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_maps(tmp_path_factory.mktemp("maps"))
    rows = [
        "latency_us,collective,size_bytes,ranks",
        *(f"{900 + i},all_reduce,8,8" for i in range(400)),
    ]
    (folder / "slow.csv").write_text("\n".join(rows) + "\n")
    (folder / "nccl.txt").write_text(whole())
    return folder


def test_percentiles_are_printed_and_a_p999_of_few_samples_is_refused() -> None:
    done = topology("tail", INSPECTOR)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split()[:5] == ["what", "size", "ranks", "samples", "percentile"]
    assert lines[1].split()[:5] == ["AllReduce", "64", "KiB", "8", "320"]
    assert any("p99.9" in line and "refused" in line for line in lines)
    assert "refused: 320 samples carry no p99.9: it needs 2,995, or --tail-model" in lines


def test_a_named_model_gives_it_and_is_named_with_its_fit() -> None:
    done = topology("tail", INSPECTOR, "--tail-model", "gpd")
    assert done.code == 0, done.err
    assert "(modelled)" in done.out
    assert "modelled: generalised Pareto of the 32 samples above the p90" in done.out


def test_a_map_adds_the_band_and_a_verdict(maps: Path) -> None:
    done = topology("tail", OSU, "--map", maps / "dgx.json", "--gpus", "8", "--trials", "400")
    assert done.code == 0, done.out + done.err
    assert "band over profiles" in done.out
    assert "dedicated, shared, contended covers 9 of 9 measured percentiles" in done.out
    assert "bands include the calibration's 80 % interval" in done.out


def test_a_percentile_outside_the_band_is_told_and_exits_1(maps: Path) -> None:
    done = topology("tail", maps / "slow.csv", "--map", maps / "dgx.json", "--trials", "400")
    assert done.code == 1
    assert "covers 0 of 3 measured percentiles" in done.out
    assert "p99 of all_reduce (line 2) is above the band" in done.out


def test_json_is_one_document(maps: Path) -> None:
    words = ("--map", maps / "dgx.json", "--trials", "400", "--json")
    done = topology("tail", maps / "slow.csv", *words)
    assert done.code == 1
    document = json.loads(done.out)
    assert (document["kind"], document["schema_version"]) == ("measured_tails", 1)
    assert document["covered"] is False
    (tail,) = document["tails"]
    assert (tail["samples"], tail["ranks"], tail["size_bytes"]) == (400, 8, 8)
    p99 = tail["percentiles"]["p99_s"]
    assert p99["cover"] == "above the band"
    assert p99["value_s"] == pytest.approx(1295e-6, rel=1e-2)
    assert set(p99["band"]["by_profile_s"]) == {"dedicated", "shared", "contended"}
    p999 = tail["percentiles"]["p999_s"]
    assert (p999["value_s"], p999["origin"]) == (None, "refused")


def test_the_same_seed_gives_the_same_bytes(maps: Path) -> None:
    words = ("tail", maps / "slow.csv", "--map", maps / "dgx.json", "--trials", "400", "--json")
    assert topology(*words).out == topology(*words).out
    assert topology(*words).out != topology(*words, "--seed", "1").out


def test_without_a_map_nothing_is_said_to_be_covered(maps: Path) -> None:
    document = json.loads(topology("tail", maps / "slow.csv", "--json").out)
    assert document["covered"] is None
    assert document["tails"][0]["percentiles"]["p50_s"]["band"] is None


def test_means_are_printed_as_means(maps: Path) -> None:
    done = topology("tail", maps / "nccl.txt")
    assert done.code == 0
    assert "mean" in done.out
    assert "p99" not in done.out
    assert "a mean of 20 calls" in done.out


def test_lines_left_out_are_told_and_exit_3(maps: Path) -> None:
    (maps / "cut.txt").write_text(f"{OSU.read_text()}4096 1.5\n")
    done = topology("tail", maps / "cut.txt")
    assert done.code == 3
    assert "skipped line 7: 2 cells in a row, 6 in its head" in done.err


def test_a_trace_may_come_from_stdin() -> None:
    done = topology("tail", "-", stdin=b"latency_us\n" + b"5\n6\n" * 200)
    assert done.code == 0, done.err
    assert "p99" in done.out


def test_bad_input_is_refused_in_one_line(maps: Path) -> None:
    assert "of no known format" in refused(topology("tail", maps / "work.yaml"))
    assert "no such file" in refused(topology("tail", maps / "none"))
    assert "asked for twice" in refused(topology("tail", "-", "--map", "-"))
    mean = topology("tail", maps / "nccl.txt", "--map", maps / "dgx.json")
    assert "no percentile to hold against" in refused(mean)
    wrong = topology("tail", maps / "slow.csv", "--map", maps / "dgx.json", "--size", "9")
    assert "the file tells 8, --size 9" in refused(wrong)
    assert "--size" in refused(topology("tail", maps / "slow.csv", "--size", "many"))
    assert "--tail-model" in refused(topology("tail", maps / "slow.csv", "--tail-model", "cauchy"))
