"""What both command lines share: options, exit codes, printing. No fleet, no graph.

Only typer is imported at the top: ``--help`` must stay quick, so rich and json load where used.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from fleet.errors import ExpectedError

if TYPE_CHECKING:
    from rich.progress import Progress

STDIO = "-"


class ExitCode(IntEnum):
    """Exit status of every command (the table is in the README)."""

    DONE = 0
    FINDINGS = 1
    BAD_INPUT = 2
    PARTIAL = 3
    NOTHING_COLLECTED = 4
    INTERRUPTED = 130
    READER_GONE = 141


AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document with schema_version instead.")
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", help="Write the product to FILE; '-' is stdout.", metavar="FILE"
    ),
]
FleetFile = Annotated[
    str, typer.Argument(help="Fleet map (.json or .json.gz); '-' is stdin.", metavar="MAP")
]
Seed = Annotated[int, typer.Option(help="Seed of the random draws; same seed, same bytes.", min=0)]

_debug = False


def make_app(help_text: str) -> typer.Typer:
    """A Typer application with the conventions of both commands."""
    app = typer.Typer(
        help=help_text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(common_options)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fleetmap {version('fleetmap')}")
        raise typer.Exit


def common_options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and leave.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Options that stand before the command."""
    global _debug
    _debug = debug


def run_app(app: typer.Typer) -> None:
    """Run a command line: what can be expected to fail becomes one line and an exit code."""
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:  # None: the caller closed it
            sys.stdout.flush()
    except ExpectedError as error:
        code = _refuse(str(error), error.exit_code)
    except OSError as error:
        code = _stdout_lost(error)
    except SystemExit as leaving:
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        code = _stdout_lost(leaving.__context__)  # click calls it 1, our word for findings
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        code = _refuse(_usage_text(error), ExitCode.BAD_INPUT)
    sys.exit(code)


def _refuse(text: str, code: int) -> int:
    """Say in one line what is wrong; nothing where the help was the answer."""
    if _debug:
        from traceback import print_exc

        print_exc()
    if text:
        say(f"error: {text}")
    return int(code)


def _stdout_lost(error: OSError) -> int:
    """Stdout took no more: no word where its reader left, as ``head`` does, else one line."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered has to go somewhere
    if isinstance(error, BrokenPipeError):
        return ExitCode.READER_GONE
    where = error.filename or "stdout"
    return _refuse(f"{where}: cannot be used ({error.strerror})", ExitCode.BAD_INPUT)


def _usage_text(error: Any) -> str:
    """A usage error of click, whose class Typer hides, in one line that ends with where to look."""
    text = " ".join(str(error.format_message()).replace("Value error, ", "").split())
    context = getattr(error, "ctx", None)
    return f"{text.rstrip('.')}; see {context.command_path} --help" if text and context else text


def leave(code: ExitCode) -> NoReturn:
    """End the command with an exit code other than 0."""
    raise typer.Exit(int(code))


def say(text: str) -> None:
    """Talk to the person: stderr."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)


def printable(text: str) -> str:
    r"""One line that is safe on a terminal: what a device or a file says may hold control codes.

    >>> print(printable("H100 \x1b[31mred\n"))
    H100 \x1b[31mred\n
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def print_json(document: object) -> None:
    """One JSON document on stdout, keys in the order given, floats shortest."""
    import json

    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """A table of text on stdout; columns in ``right`` are right-aligned. Never truncated."""
    for line in table_lines(header, rows, right=right):
        print(line)


def table_lines(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int] = ()
) -> list[str]:
    """The lines of a table, two spaces between columns, no trailing space.

    >>> table_lines(("link", "GB/s"), [("nvlink4", "450"), ("ndr", "50")], right=(1,))
    ['link     GB/s', 'nvlink4   450', 'ndr        50']
    """
    cells = [tuple(header), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return [line(row) for row in cells]


@contextmanager
def progress(label: str) -> Iterator["Progress"]:
    """A progress bar on stderr, shown on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield bar
