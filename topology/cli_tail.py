"""``topology tail``: parse, one library call, print."""

from typing import TYPE_CHECKING, Annotated

import typer

from fleet.console import AsJson, ExitCode, Seed, leave, print_json, print_table, printable, say
from topology.cli_options import (
    Ranks,
    Stack,
    Trials,
    bytes_of,
    placement_from_words,
    refuse_twice,
)
from topology.words import AlgorithmName, Collective, DType, Launch, ProtocolChoice, TailModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from topology.latency.scenario import Scenario
    from topology.measured.tail_band import HeldTail
    from topology.measured.tail_file import TailFile


def tail(
    measured: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="What was measured: JSON of NCCL Inspector, text of the OSU micro-benchmarks, "
            "GPCNeT, nccl-tests or rccl-tests, a CSV of samples or of percentiles; '-' is stdin.",
        ),
    ],
    *,
    fleet_file: Annotated[
        str | None,
        typer.Option(
            "--map", metavar="MAP", help="Fleet map of the machine: also simulate it and compare."
        ),
    ] = None,
    collective: Annotated[
        Collective | None, typer.Option(help="Where the file does not tell it.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="One rank's whole buffer, where the file is silent."),
    ] = None,
    gpus: Ranks = None,
    placement: Annotated[
        str, typer.Option(metavar="WORD|FILE", help="pack, spread, or a FILE, as for simulate.")
    ] = "pack",
    algorithm: Annotated[
        AlgorithmName, typer.Option(help="How it was done; auto takes what NCCL takes.")
    ] = AlgorithmName.AUTO,
    protocol: Annotated[ProtocolChoice, typer.Option(help="NCCL's.")] = ProtocolChoice.AUTO,
    launch: Annotated[Launch, typer.Option(help="How ranks were started.")] = Launch.PROCESS,
    dtype: Annotated[DType, typer.Option(help="Type of an element.")] = DType.FLOAT32,
    stack: Stack = None,
    trials: Trials = None,
    seed: Seed = 0,
    tail_model: Annotated[
        TailModel | None,
        typer.Option(
            help="Law that carries percentiles beyond the samples: a p99.9 of fewer than 2,995 is "
            "refused without; gpd: generalised Pareto above the p90."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print measured percentiles; with a map, whether the band over noise profiles covers them.

    Exit 1 where it does not, 3 where lines or measurements were left out.
    """
    from topology.latency.scenario import Scenario
    from topology.measured.tail_band import without_bands
    from topology.measured.tail_file import Told
    from topology.measured.tail_files import read_tails

    refuse_twice(measured, fleet_file, placement)
    size_bytes = None if size is None else bytes_of("--size", size)
    scenario = Scenario(
        collective=collective or Collective.ALL_REDUCE,
        size_bytes=size_bytes or 1,
        algorithm=algorithm,
        protocol=protocol.protocol,
        launch=launch,
        dtype=dtype,
        stack=stack,
        trials=trials,
        seed=seed,
    )
    file = read_tails(measured, told=Told(gpus, collective))
    if fleet_file is None:
        held = without_bands(file.tails, tail_model)
    else:
        asked = (collective, size_bytes, gpus, placement)
        held = _held(file, fleet_file, scenario, asked, tail_model)
    _print(file, held, tail_model, as_json=as_json)
    if any(found.is_outside for found in held):
        leave(ExitCode.FINDINGS)
    if file.skipped or any(found.reason for found in held):
        leave(ExitCode.PARTIAL)


def _held(
    file: "TailFile",
    fleet_file: str,
    scenario: "Scenario",
    asked: tuple[Collective | None, int | None, int | None, str],
    model: TailModel | None,
) -> "tuple[HeldTail, ...]":
    """The tails, each simulated under every profile, with a progress bar."""
    from fleet.console import progress
    from topology.fabric.from_fleet import load_fabric
    from topology.measured.tail_band import Asked, hold_against

    collective, size_bytes, ranks, words = asked
    fabric = load_fabric(fleet_file)
    what = Asked(
        scenario,
        lambda count: placement_from_words(fabric, words, count),
        collective=collective,
        size_bytes=size_bytes,
        ranks=ranks,
    )
    with progress("measurements") as bar:
        task = bar.add_task("measurements", total=None)
        return hold_against(
            file.tails,
            fabric,
            what,
            model=model,
            step=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _print(
    file: "TailFile", held: "Sequence[HeldTail]", model: TailModel | None, *, as_json: bool
) -> None:
    from topology.measured.diagnosis_report import skipped_lines
    from topology.measured.tail_report import (
        RIGHT,
        lines_of,
        table_of,
        tails_document,
        verdict_line,
    )

    if as_json:
        print_json(tails_document(file, held, model))
        return
    for line in skipped_lines(file.skipped):
        say(line)
    head, rows = table_of(held)
    print_table(head, rows, right=RIGHT)
    verdict = verdict_line(held)
    for line in [*([] if verdict is None else ["", verdict]), *lines_of(held)]:
        print(printable(line))
