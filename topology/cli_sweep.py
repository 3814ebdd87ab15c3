"""``topology sweep``: one collective over sizes, on some maps beside one another."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fleet.console import AsJson, Seed, print_json, print_table, progress, say
from topology.cli_options import Noise, Stack, Trials, bytes_of, check_plot, map_names, refuse_twice
from topology.errors import WorkloadError
from topology.words import AlgorithmName, Collective, Launch, NoiseName

if TYPE_CHECKING:
    from topology.latency.scenario import Scenario
    from topology.plan.size_sweep import SizeSweep

MOST_SIZES: Final = 64


def sweep(
    fleet_files: Annotated[
        list[str],
        typer.Argument(help="Fleet maps, compared with the first; '-' is stdin.", metavar="MAP..."),
    ],
    *,
    collective: Annotated[Collective, typer.Option(help="What the ranks do together.")],
    sizes: Annotated[
        str,
        typer.Option(
            metavar="SIZES",
            help="One rank's whole buffer, ascending: 8,64KiB,1MiB or 8..1GiB, which goes up by "
            "--factor and ends at its end.",
        ),
    ] = "8..1GiB",
    factor: Annotated[int, typer.Option(help="From one size of a range to the next.", min=2)] = 8,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", "--ranks", help="World size on each map; default: all of the smallest.", min=1
        ),
    ] = None,
    algorithm: Annotated[
        AlgorithmName,
        typer.Option(help="auto takes what NCCL takes; on the wire the fastest without noise."),
    ] = AlgorithmName.AUTO,
    launch: Annotated[
        Launch, typer.Option(help="How the operation is started; see topology simulate --help.")
    ] = Launch.PROCESS,
    stack: Stack = None,
    noise: Noise = NoiseName.DEDICATED,
    trials: Trials = None,
    seed: Seed = 0,
    plot: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also draw times by size: .png, .svg or .pdf."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a collective over sizes, on some maps beside one another; p99.9 as a band."""
    from topology.latency.scenario import Scenario

    asked = sizes_of("--sizes", sizes, factor=factor)
    scenario = Scenario(
        collective=collective,
        size_bytes=asked[-1],
        algorithm=algorithm,
        launch=launch,
        stack=stack,
        noise=noise,
        trials=trials,
        seed=seed,
    )
    if plot is not None:
        check_plot(plot, len(fleet_files))
    refuse_twice(*fleet_files)
    found = _swept(fleet_files, asked, scenario, gpus)
    if plot is not None:
        from topology.diagram.size_plot import draw_sizes

        draw_sizes(found, plot)
        say(f"wrote {plot}")
    _print(found, as_json=as_json)


def sizes_of(option: str, text: str, *, factor: int) -> tuple[int, ...]:
    """What an option's sizes stand for: single ones and ranges, ascending. [bytes]"""
    sizes = tuple(size for part in text.split(",") for size in _range(option, part, factor))
    if len(sizes) > MOST_SIZES:
        remedy = f"give at most {MOST_SIZES}, or a larger --factor"
        raise WorkloadError(f"{len(sizes)} sizes", field=option, remedy=remedy)
    from topology.plan.size_sweep import check_ascending

    check_ascending(sizes)
    return sizes


def _range(option: str, part: str, factor: int) -> Iterator[int]:
    """A size, or those of a range: up by a factor while below its end, then the end."""
    first, dots, last = part.partition("..")
    size = bytes_of(option, first)
    if dots:
        end = bytes_of(option, last)
        if end < size:
            remedy = f"write {last.strip()}..{first.strip()}"
            raise WorkloadError(f"{part.strip()!r} falls", field=option, remedy=remedy)
        while size < end:
            yield size
            size *= factor
        size = end
    yield size


def _swept(
    fleet_files: list[str], sizes: tuple[int, ...], scenario: "Scenario", gpus: int | None
) -> "SizeSweep":
    from fleet.units import text_from_bytes
    from topology.fabric.from_fleet import load_fabric
    from topology.plan.size_sweep import NamedFabric, sweep_sizes

    maps = [
        NamedFabric(name, load_fabric(path))
        for name, path in zip(map_names(fleet_files), fleet_files, strict=True)
    ]
    with progress("sizes") as bar:
        task = bar.add_task("sizes", total=None)
        return sweep_sizes(
            maps,
            sizes,
            scenario,
            ranks=gpus,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            notice=(lambda name, size, text: say(f"{name}, {text_from_bytes(size)}: {text}"))
            if bar.disable
            else None,
        )


def _print(found: "SizeSweep", *, as_json: bool) -> None:
    from topology.plan import sweep_report as report

    if as_json:
        print_json(report.sweep_document(found))
        return
    print("\n".join(report.heading_lines(found)))
    print_table(*report.sweep_table(found), right=report.right_columns(found))
    for line in report.closing_lines(found):
        print(line)
