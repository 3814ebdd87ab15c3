"""Predictions of this revision as a table, to be compared between revisions (run it on both).

python tests/bench/predictions.py > new.csv; then diff old.csv new.csv. A row that worked before and
fails now blocks; a row that moved goes into the commit message with the reason.
"""

import csv
import sys
from pathlib import Path

from fleet import load_fleet
from topology.collective.placement import pack
from topology.errors import TopologyError
from topology.fabric.from_fleet import Fabric
from topology.latency.scenario import Scenario
from topology.latency.simulate import simulate
from topology.plan.planner import plan_workload
from topology.plan.workload import Workload
from topology.words import Collective

SIZES = (8, 64 * 2**10, 2**20, 64 * 2**20)
TRIALS = 400
HEADER = (
    "sample",
    "collective",
    "ranks",
    "size_bytes",
    "algorithm",
    "p50_s",
    "p99_s",
    "busbw",
    "move",
)


def rows(path: Path) -> list[list[object]]:
    """One row for each collective and size on one sample, and the move a plan takes."""
    fabric = Fabric(load_fleet(path))
    ranks = min(64, len(fabric.endpoints))
    placement = pack(fabric, ranks)
    table: list[list[object]] = []
    for collective in Collective:
        for size in SIZES:
            start = [path.name.partition(".")[0], collective.value, ranks, size]
            try:
                summary = simulate(fabric, placement, Scenario(collective, size, trials=TRIALS))
                workload = Workload(
                    kind="workload",
                    schema_version=1,
                    name="drift",
                    collective=collective,
                    size_bytes=size,
                    gpus=max(2, ranks // 2),
                )
                plan = plan_workload(fabric, workload, trials=TRIALS)
                move = plan.chosen.move.name if plan.chosen else "none"
                numbers = [summary.percentiles["p50_s"], summary.percentiles["p99_s"]]
                shown = [f"{value:.6g}" for value in numbers if value is not None]
                busbw = f"{summary.busbw_bytes_per_s:.6g}"
                table.append([*start, summary.algorithm, *shown, busbw, move])
            except TopologyError as error:
                table.append([*start, "failed", "", "", "", str(error)])
    return table


def main() -> None:
    """Print the table as CSV."""
    writer = csv.writer(sys.stdout)
    writer.writerow(HEADER)
    for path in sorted(Path(__file__).parents[2].glob("samples/fleets/*")):
        writer.writerows(rows(path))


if __name__ == "__main__":
    main()
