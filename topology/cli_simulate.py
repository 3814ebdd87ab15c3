"""``topology simulate``: parse, one library call, print."""

from typing import Annotated

import typer

from fleet.console import AsJson, FleetFile, Seed, print_json, progress, say
from topology.cli_options import (
    Noise,
    Ranks,
    Stack,
    Trials,
    bytes_of,
    placement_from_words,
    refuse_twice,
)
from topology.words import (
    AlgorithmName,
    Collective,
    DType,
    Launch,
    MethodName,
    NoiseName,
    ProtocolChoice,
)


def simulate(
    fleet_file: FleetFile,
    *,
    collective: Annotated[Collective, typer.Option(help="What the ranks do together.")],
    size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="One rank's whole buffer, as nccl-tests counts it: 8 (bytes), 64KiB, 1GB.",
        ),
    ],
    gpus: Ranks = None,
    placement: Annotated[
        str,
        typer.Option(
            metavar="WORD|FILE",
            help="pack (fewest domains and nodes), spread (all nodes), "
            "or a FILE with one 'host slot' a line in rank order.",
        ),
    ] = "pack",
    algorithm: Annotated[
        AlgorithmName,
        typer.Option(help="auto takes what NCCL takes; on the wire the fastest without noise."),
    ] = AlgorithmName.AUTO,
    protocol: Annotated[
        ProtocolChoice, typer.Option(help="NCCL's protocol; auto takes what NCCL takes.")
    ] = ProtocolChoice.AUTO,
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
    noise: Noise = NoiseName.DEDICATED,
    method: Annotated[
        MethodName,
        typer.Option(
            help="How percentiles are found: replay (monte_carlo), certified algebra (exact, where "
            "messages form trees), a law of growth (scaling, long rings); auto replays what takes "
            "seconds."
        ),
    ] = MethodName.AUTO,
    sharp: Annotated[
        bool, typer.Option("--sharp", help="The network's switches reduce (SHARP): allows collnet.")
    ] = False,
    without: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What if it were fixed: take away the noise of a node, a link class, "
            "a kind of link (nvlink, pci, net) or a layer (body, detour).",
        ),
    ] = None,
    attribute: Annotated[
        bool,
        typer.Option("--attribute", help="Also say who makes the tail: a replay for each cause."),
    ] = False,
    trials: Trials = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a collective: percentiles of its completion time, and what they are made of."""
    from topology.fabric.from_fleet import load_fabric
    from topology.latency.report import summary_document, summary_lines
    from topology.latency.scenario import Scenario
    from topology.latency.simulate import simulate as run_simulation

    scenario = Scenario(
        collective=collective,
        size_bytes=bytes_of("--size", size),
        algorithm=algorithm,
        protocol=protocol.protocol,
        launch=launch,
        dtype=dtype,
        stack=stack,
        noise=noise,
        method=method,
        sharp=sharp,
        without=without,
        attribute=attribute,
        trials=trials,
        seed=seed,
    )
    refuse_twice(fleet_file, placement)
    fabric = load_fabric(fleet_file)
    placed = placement_from_words(fabric, placement, gpus)
    with progress("trials") as bar:
        task = bar.add_task("trials", total=None)
        summary = run_simulation(
            fabric,
            placed,
            scenario,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            notice=say if bar.disable else None,
        )
    if as_json:
        print_json(summary_document(summary))
    else:
        print("\n".join(summary_lines(summary)))
