"""The fabric of a very large fleet. Goal: routes of 129,000 GPUs in seconds, linear in nodes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleet import fleet_from_spec, save_fleet

pytestmark = pytest.mark.bench

SCRIPT = """
import gc, json, resource, sys, time
import numpy as np
from topology.start import SELDOM
gc.set_threshold(*SELDOM)  # as the command does
from topology.fabric.from_fleet import load_fabric
from topology.fabric.route_table import RouteMap
begin = time.perf_counter(); fabric = load_fabric(sys.argv[1]); loaded = time.perf_counter()
network = fabric.network; built = time.perf_counter()
routes = RouteMap(fabric, fabric.endpoints); mapped = time.perf_counter()
rank = np.arange(routes.rank_count)
routes.table(rank, (rank + 8) % len(rank)); end = time.perf_counter()
print(json.dumps({
    "ranks": len(rank), "load_s": loaded - begin, "network_s": built - loaded,
    "route_map_s": mapped - built, "table_s": end - mapped,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""
NODES = (1024, 4096, 16128)


def measure(path: Path) -> dict[str, float]:
    """One run in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], check=True, capture_output=True, text=True
    )
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


def test_the_fabric_grows_with_its_nodes(tmp_path: Path) -> None:
    first: dict[str, float] | None = None
    for nodes in NODES:
        path = tmp_path / f"{nodes}.json.gz"
        save_fleet(fleet_from_spec(f"model:dgx-h100 node:{nodes}"), path)
        row = measure(path)
        first = first or row
        spent = {name: value for name, value in row.items() if name.endswith("_s")}
        growth = sum(spent.values()) / sum(first[name] for name in spent)
        parts = ", ".join(f"{name[:-2]} {value:.2f} s" for name, value in spent.items())
        print(
            f"\n{nodes} nodes, {row['ranks']:.0f} ranks: {parts}; peak {row['peak_mib']:.0f} MiB; "
            f"{growth:.1f} times the time of {NODES[0]} nodes, {nodes / NODES[0]:.1f} times them"
        )
