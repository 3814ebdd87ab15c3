"""``topology step``: parse, one library call, print."""

from typing import Annotated

import typer

from fleet.console import AsJson, FleetFile, Seed, print_json, progress, say
from topology.cli_options import Noise, Stack, Trials, Where, placement_from_words, refuse_twice
from topology.errors import WorkloadError
from topology.words import NoiseName


def step(
    fleet_file: FleetFile,
    step_file: Annotated[
        str,
        typer.Argument(
            help="Step (YAML): its computes and collectives, see samples/steps; '-' is stdin.",
            metavar="STEP",
        ),
    ],
    *,
    placement: Where = "pack",
    stack: Stack = None,
    noise: Noise = NoiseName.DEDICATED,
    trials: Trials = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a training or decode step: collectives and compute, overlapped or not."""
    from topology.fabric.from_fleet import load_fabric
    from topology.steps.document import load_step
    from topology.steps.report import step_document, step_lines
    from topology.steps.simulate import simulate_step

    refuse_twice(fleet_file, step_file, placement)
    wanted = load_step(step_file)
    fabric = load_fabric(fleet_file)
    if placement in ("pack", "spread") and wanted.gpus > len(fabric.endpoints):
        raise WorkloadError(
            f"{wanted.gpus} GPUs, and the map has {len(fabric.endpoints)}",
            where=step_file,
            field="gpus",
            remedy="take a larger map, or a smaller step",
        )
    placed = placement_from_words(fabric, placement, wanted.gpus)
    with progress("step") as bar:
        task = bar.add_task("step", total=None)
        summary = simulate_step(
            wanted,
            fabric,
            placed,
            noise=noise,
            stack=stack,
            trials=trials,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            notice=say if bar.disable else None,
        )
    if as_json:
        print_json(step_document(summary))
    else:
        print("\n".join(step_lines(summary)))
