import sys

import pytest
import typer

from fleet.console import (
    ExitCode,
    leave,
    make_app,
    print_json,
    print_table,
    progress,
    run_app,
    say,
    table_lines,
)
from fleet.errors import (
    ExpectedError,
    FleetError,
    NothingCollectedError,
    SnapshotError,
    SourceError,
    StoreError,
)


def small_app() -> typer.Typer:
    app = make_app("A command line like ours.")

    @app.command()
    def fail() -> None:
        raise StoreError("no such file", where="a.json", remedy="check the path")

    @app.command()
    def nothing() -> None:
        raise NothingCollectedError("nothing to map")

    @app.command()
    def stop() -> None:
        raise KeyboardInterrupt

    @app.command()
    def partial() -> None:
        say("one refused")
        leave(ExitCode.PARTIAL)

    return app


def run_with(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["app", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_app(small_app())
    assert isinstance(caught.value.code, int)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ExpectedError("broken"), "broken"),
        (ExpectedError("broken", where="a.json"), "a.json: broken"),
        (ExpectedError("broken", field="gpus[1].uuid"), "gpus[1].uuid: broken"),
        (
            SnapshotError("was 3", where="a.json", field="gpus[1].uuid", remedy="give a text"),
            "a.json: gpus[1].uuid: was 3; give a text",
        ),
    ],
)
def test_error_is_one_line_of_place_problem_and_remedy(error: ExpectedError, text: str) -> None:
    assert str(error) == text


def test_facts_of_an_error_are_attributes() -> None:
    error = StoreError("too old", where="a.json", field="schema_version", remedy="upgrade")
    assert (error.where, error.field) == ("a.json", "schema_version")
    assert (error.problem, error.remedy) == ("too old", "upgrade")


def test_every_error_before_the_map_is_a_fleet_error() -> None:
    for kind in (SnapshotError, SourceError, StoreError, NothingCollectedError):
        assert issubclass(kind, FleetError)


def test_exit_codes_are_those_of_the_table() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "FINDINGS": 1,
        "BAD_INPUT": 2,
        "PARTIAL": 3,
        "NOTHING_COLLECTED": 4,
        "INTERRUPTED": 130,
        "READER_GONE": 141,
    }
    assert ExpectedError.exit_code == ExitCode.BAD_INPUT
    assert NothingCollectedError.exit_code == ExitCode.NOTHING_COLLECTED


def test_expected_error_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with("fail", monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: a.json: no such file; check the path\n"
    assert printed.out == ""


def test_debug_adds_a_traceback_and_keeps_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with("--debug", "nothing", monkeypatch=monkeypatch) == 4
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback")
    assert printed.endswith("error: nothing to map\n")


def test_debug_of_one_run_does_not_stay_for_the_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_with("--debug", "fail", monkeypatch=monkeypatch)
    capsys.readouterr()
    run_with("fail", monkeypatch=monkeypatch)
    assert "Traceback" not in capsys.readouterr().err


def test_exit_code_of_the_error_class_is_the_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with("nothing", monkeypatch=monkeypatch) == 4


def test_interrupt_leaves_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with("stop", monkeypatch=monkeypatch) == 130


def test_command_may_leave_with_a_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with("partial", monkeypatch=monkeypatch) == 3
    assert capsys.readouterr().err == "one refused\n"


@pytest.mark.parametrize("arguments", [("nonsense",), ("fail", "--nonsense")])
def test_wrong_usage_leaves_with_2(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(*arguments, monkeypatch=monkeypatch) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "nonsense" in line
    assert line.endswith(f"; see app{' fail' if len(arguments) > 1 else ''} --help")


def test_no_command_is_answered_with_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr()
    assert "A command line like ours." in printed.out + printed.err
    assert "error:" not in printed.err


def test_version_is_printed_and_nothing_else_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with("--version", "fail", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("fleetmap 0.")


def test_table_aligns_columns_and_trails_no_space() -> None:
    lines = table_lines(("link", "GB/s"), [("nvlink4", "450"), ("ndr", "50")], right=(1,))
    assert lines == ["link     GB/s", "nvlink4   450", "ndr        50"]
    assert all(line == line.rstrip() for line in lines)


def test_table_without_rows_is_its_header() -> None:
    assert table_lines(("a", "b"), []) == ["a  b"]


def test_row_of_another_width_is_no_table() -> None:
    with pytest.raises(ValueError, match="zip"):
        table_lines(("a", "b"), [("1", "2", "3")])


def test_long_cells_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("what",), [("x" * 500,)])
    assert "x" * 500 in capsys.readouterr().out


def test_json_keeps_order_and_refuses_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"b": 1, "a": "µ"})
    assert capsys.readouterr().out == '{\n  "b": 1,\n  "a": "µ"\n}\n'
    with pytest.raises(ValueError, match="JSON compliant"):
        print_json({"a": float("nan")})


def test_progress_off_a_terminal_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("reading") as bar:
        bar.add_task("files", total=2)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")
