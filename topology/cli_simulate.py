"""``topology simulate``: parse, one library call, print."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from fleet.console import AsJson, FleetFile, Seed, print_json, progress, say
from topology.cli_options import (
    BufferSize,
    NcclProtocol,
    Ranks,
    Stack,
    Trials,
    Where,
    bytes_of,
    check_plot,
    layers_from_words,
    map_names,
    noise_from_words,
    placement_from_words,
    refuse_twice,
    share_of,
)
from topology.errors import WorkloadError
from topology.words import (
    AlgorithmName,
    Collective,
    DType,
    Launch,
    MethodName,
    NoiseName,
    ProtocolChoice,
)

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from topology.collective.placement import Placement
    from topology.fabric.from_fleet import Fabric
    from topology.latency.scenario import Scenario


def simulate(
    fleet_file: FleetFile,
    *,
    collective: Annotated[Collective, typer.Option(help="What the ranks do together.")],
    size: BufferSize,
    gpus: Ranks = None,
    placement: Where = "pack",
    algorithm: Annotated[
        AlgorithmName,
        typer.Option(help="auto takes what NCCL takes; on the wire the fastest without noise."),
    ] = AlgorithmName.AUTO,
    protocol: NcclProtocol = ProtocolChoice.AUTO,
    launch: Annotated[
        Launch,
        typer.Option(
            help="One process or one thread for each GPU, one thread for all of a node, "
            "a CUDA graph, or eager: a framework's call."
        ),
    ] = Launch.PROCESS,
    dtype: Annotated[
        DType, typer.Option(help="Type of an element: no NVSwitch of Hopper's sums integers.")
    ] = DType.FLOAT32,
    stack: Stack = None,
    noise: Annotated[
        str,
        typer.Option(
            metavar="WORD|FILE",
            help="How noisy the fabric is: none, dedicated, shared or contended; or what you "
            "measured: a CSV FILE with latency_ns of messages over the network, or with the "
            "link_class of each.",
        ),
    ] = NoiseName.DEDICATED.value,
    layers: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            help="Noise beyond single messages, joined by commas, or all: skew (late ranks), stall "
            "(a CPU that is away), episode (minutes of slow links), slow (hosts, those the map "
            "knows or a population), correlated (bursts of a leaf or host), collision (ECMP).",
        ),
    ] = "",
    method: Annotated[
        MethodName,
        typer.Option(
            help="How percentiles are found: replay (monte_carlo), certified algebra (exact, where "
            "messages form trees), a law of growth (scaling, long rings); auto certifies trees and "
            "replays what takes seconds."
        ),
    ] = MethodName.AUTO,
    sharp: Annotated[
        bool, typer.Option("--sharp", help="The network's switches reduce (SHARP): allows collnet.")
    ] = False,
    without: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What if it were fixed: take away the noise of a node, of the way between two "
            "(a+b), of a link class, a kind of link (nvlink, pci, net) or a layer (body, detour, "
            "or one of --layers).",
        ),
    ] = None,
    attribute: Annotated[
        bool,
        typer.Option("--attribute", help="Also say who makes the tail: a replay for each cause."),
    ] = False,
    knee: Annotated[
        bool,
        typer.Option(
            "--knee",
            help="Also say from which rank count rare events, and no longer jitter, make p99.9.",
        ),
    ] = False,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT",
            help="Replay until p99's 95 % interval reaches no further than this, e.g. 2%; "
            "--trials are then the most.",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Draw how often a run takes longer than a time, under every noise profile: "
            ".png, .svg or .pdf.",
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="MAP", help="Another map in the picture; may be given again."),
    ] = None,
    trials: Trials = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a collective: percentiles of its completion time, and what they are made of."""
    from topology.fabric.from_fleet import load_fabric
    from topology.latency.report import summary_document, summary_lines
    from topology.latency.scenario import Scenario
    from topology.latency.simulate import simulate as run_simulation

    refuse_twice(fleet_file, placement, noise, *(against or ()))
    maps = [fleet_file, *(against or ())]
    if plot is not None:
        check_plot(plot, len(maps))
    elif against:
        raise WorkloadError("no picture is asked for", field="--against", remedy="give --plot FILE")
    if len(set(maps)) < len(maps):
        raise WorkloadError("a map stands twice", field="--against", remedy="name each once")
    profile, measured = noise_from_words(noise)
    scenario = Scenario(
        collective=collective,
        size_bytes=bytes_of("--size", size),
        algorithm=algorithm,
        protocol=protocol.protocol,
        launch=launch,
        dtype=dtype,
        stack=stack,
        noise=profile,
        measured=measured,
        layers=layers_from_words("--layers", layers),
        method=method,
        sharp=sharp,
        without=without,
        attribute=attribute,
        knee=knee,
        precision=None if precision is None else share_of("--precision", precision),
        trials=trials,
        seed=seed,
    )
    fabric = load_fabric(fleet_file)
    placed = placement_from_words(fabric, placement, gpus)
    others = [load_fabric(name) for name in against or ()]
    placements = [placed, *(placement_from_words(o, placement, placed.ranks) for o in others)]
    with progress("trials") as bar:
        task = bar.add_task("trials", total=None)
        summary = run_simulation(
            fabric,
            placed,
            scenario,
            progress=partial(_tell, bar, task),
            notice=say if bar.disable else None,
        )
    if plot is not None:
        cases = list(zip(map_names(maps), [fabric, *others], placements, strict=True))
        _plot_tails(cases, scenario, summary.trials, plot)
    if as_json:
        print_json(summary_document(summary))
    else:
        print("\n".join(summary_lines(summary)))


def _plot_tails(
    cases: "list[tuple[str, Fabric, Placement]]",
    scenario: "Scenario",
    trials: int | None,
    output: str,
) -> None:
    """The tails of a scenario on some maps, each with its name and ranks, as a picture."""
    from fleet.units import text_from_bytes
    from topology.diagram.tail_plot import curve_of_samples, draw_tails
    from topology.latency.band import tail_samples_s

    curves = []
    for name, fabric, placed in cases:
        with progress(f"trials on {name}") as bar:
            tell = partial(_tell, bar, bar.add_task(name, total=None))
            samples = tail_samples_s(fabric, placed, scenario, trials=trials, progress=tell)
        curves += [curve_of_samples(name, profile, told) for profile, told in samples.items()]
    size = text_from_bytes(scenario.size_bytes)
    ranks = cases[0][2].ranks
    draw_tails(curves, output, subtitle=f"{scenario.collective} of {size} over {ranks:,} ranks")
    say(f"wrote {output}")


def _tell(bar: "Progress", task: "TaskID", done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)
