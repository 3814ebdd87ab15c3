"""``topology simulate`` as a person types it: noise, precision, the knee."""

import gzip
from pathlib import Path

import pytest

from tests.topology.command import ALL_REDUCE, refused, simulate, topology, write_maps


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_maps(tmp_path_factory.mktemp("maps"))
    rows = "".join(f"{2_000 + i % 100}\n" for i in range(2_000))
    (folder / "trace.csv").write_text(f"latency_ns\n{rows}")
    (folder / "trace.csv.gz").write_bytes(gzip.compress(f"latency_ns\n{rows}".encode(), mtime=0))
    (folder / "nan.csv").write_text(f"latency_ns\nnan\n{rows}")
    (folder / "short.csv").write_text("latency_ns\n" + "2000\n" * 10)
    (folder / "other.csv").write_text(f"time\n{rows}")
    return folder


@pytest.mark.parametrize("name", ["trace.csv", "trace.csv.gz"])
def test_measured_noise_is_read_and_its_warm_up_told(maps: Path, name: str) -> None:
    done = simulate(maps, "--noise", maps / name, "--trials", "500")
    assert done.code == 0
    assert f"noise {name} on ib_ndr_1hop, 500 trials" in done.out
    assert "of 2,000 rows dropped as warm-up" in done.err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nan.csv", "nan.csv"),
        ("short.csv", "10 rows, which tell no tail"),
        ("other.csv", "no column latency_ns"),
        ("none.csv", "is no noise and no file; use none, dedicated, shared, contended"),
    ],
)
def test_a_trace_that_tells_nothing_is_refused_in_one_line(
    maps: Path, name: str, reason: str
) -> None:
    assert reason in refused(simulate(maps, "--noise", maps / name))


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--layers", "skew,wind"), "--layers: 'wind' is no layer of noise; use all, or some of"),
        (("--precision", "much"), "--precision: 'much' is no percentage; give a percentage"),
        (("--precision", "0.02"), "--precision: '0.02' is no percentage; give a percentage"),
        (("--size", "1e30"), "--size: '1e30' is too large"),
        (("--noise", "none", "--layers", "all"), "--layers: without noise it has no meaning"),
        (("--noise", "none", "--without", "net"), "--without: without noise it has no meaning"),
        (("--precision", "0%"), "--precision: 0.00%; give more than 0 and below 100 %"),
        (("--precision", "2%", "--method", "exact"), "--method: exact has no trials, and"),
        (("--knee", "--algorithm", "one_shot", "--gpus", "8"), "--knee: hops of one_shot are not"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(
    maps: Path, words: tuple[str, ...], reason: str
) -> None:
    assert reason in refused(simulate(maps, *words))


def test_layers_of_noise_are_named_in_text_and_document(maps: Path) -> None:
    done = simulate(maps, "--layers", "stall, skew", "--trials", "400")
    assert "noise dedicated and skew, stall, 400 trials" in done.out
    document = simulate(maps, "--layers", "all", "--trials", "400", "--json").document
    assert len(document["layers"]) == 6


def test_a_precision_is_reached_and_said(maps: Path) -> None:
    done = topology("simulate", maps / "dgx.json", *ALL_REDUCE, "--precision", "3 %")
    assert done.code == 0
    assert "p99 is known within" in done.out


def test_the_document_has_band_knee_and_certificate(maps: Path) -> None:
    asked = ("simulate", maps / "dgx.json", *ALL_REDUCE, "--knee", "--json")
    document = topology(*asked).document
    assert list(document["band"]) == ["dedicated", "shared", "contended"]
    assert all(row.keys() == {"p50_s", "p99_s", "p999_s"} for row in document["band"].values())
    assert document["knee"]["ranks"] >= 2
    low, high = document["bracket"]["p99_s"]
    assert low <= document["p99_s"] <= high


def test_a_picture_shows_the_tails_of_several_maps(maps: Path) -> None:
    picture = maps / "tails.svg"
    words = ("--plot", picture, "--against", maps / "dgx8.json", "--trials", "400")
    done = simulate(maps, *words)
    assert (done.code, done.err) == (0, f"wrote {picture}\n")
    text = picture.read_text()
    for told in ("all_reduce of 64 KiB over 16 ranks", "dgx8", "p99.9 over profiles"):
        assert told in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--against", "x.json"), "--against: no picture is asked for; give --plot FILE"),
        (("--plot", "tails.gif"), "tails.gif"),
        (("--plot", "tails.png", "--against", "x.json"), "x.json: no such file"),
        (("--plot", "tails.png", "--noise", "none"), "--noise none: nothing is random in it"),
    ],
)
def test_a_picture_that_cannot_be_drawn_is_refused(
    maps: Path, words: tuple[str, ...], reason: str
) -> None:
    assert reason in refused(simulate(maps, *words))
    assert not Path("tails.png").exists()


def test_a_map_that_stands_twice_is_no_comparison(maps: Path) -> None:
    again = maps / "dgx.json"
    line = refused(simulate(maps, "--plot", "tails.png", "--against", again))
    assert line == "--against: a map stands twice; name each once"


@pytest.mark.parametrize("name", ["missing.json", "empty.json"])
def test_a_map_to_compare_with_is_read_before_the_replay(
    maps: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topology.latency.simulate.simulate", lambda *_, **__: pytest.fail("ran"))
    told = {"missing.json": "no such file", "empty.json": "16 ranks asked of 0"}
    line = refused(simulate(maps, "--plot", "tails.png", "--against", maps / name))
    assert told[name] in line
