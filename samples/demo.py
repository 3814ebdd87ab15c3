"""The whole path once, by the commands a person would type: inventory, map, simulate, plan, draw.

Run by ``make demo``. Every command is printed before it runs; products go to the output folder.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from fleet.console import ExitCode

ROOT = Path(__file__).resolve().parent.parent
CAPTURE = "samples/captures/dgx-h100-01"
NVL72 = "samples/fleets/gb200-nvl72-2.json.gz"
NODES_OF_8 = "samples/fleets/dgx-h100-9-ib.json"
FLEET = "samples/fleets/dgx-h100-32.json.gz"
SIZE = "1MiB"
RANKS = 64
INVENTORY_CODES = (ExitCode.DONE, ExitCode.PARTIAL, ExitCode.NOTHING_COLLECTED)


class DemoError(Exception):
    """A command of the demo failed."""


def run(
    command: str, *, keep: Path | None = None, expected: tuple[int, ...] = (ExitCode.DONE,)
) -> int:
    """Run a command of ours, show it and what it prints; ``keep`` takes the output instead."""
    print(f"\n$ {command}" + (f" > {keep}" if keep else ""), flush=True)
    words = shlex.split(command)
    program = Path(sys.executable).parent / words[0]
    done = subprocess.run(
        [str(program), *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in expected:
        raise DemoError(f"{command}: exit {done.returncode}\n{done.stderr}")
    if keep is not None:
        (ROOT / keep).write_text(done.stdout)
    else:
        print(done.stdout + done.stderr, end="")
    return done.returncode


def say(text: str) -> None:
    """A line of the story."""
    print(f"\n== {text}", flush=True)


def take_inventory(out: Path) -> None:
    """Map this machine if an NVIDIA driver answers, else a sample capture, and say which."""
    code = run(f"fleet inventory -o {out}/machine.json", expected=INVENTORY_CODES)
    if code == ExitCode.NOTHING_COLLECTED:
        say(f"no NVIDIA driver answers here: the machine below is a sample capture, {CAPTURE}")
        run(f"fleet inventory --from {CAPTURE} -o {out}/machine.json")
    else:
        say("that was this machine, read through its NVIDIA driver")


def simulate(fleet: str, path: Path, options: str) -> dict[str, float]:
    """Percentiles of an all-reduce on a fleet, as text for people and kept as JSON."""
    command = f"topology simulate {fleet} --collective all_reduce --gpus {RANKS} {options}"
    run(command)
    run(f"{command} --json", keep=path)
    document = json.loads((ROOT / path).read_text())
    return {key: float(document[key]) for key in ("p50_s", "p99_s", "p999_s")}


def compare(out: Path, name: str, options: str) -> tuple[dict[str, float], dict[str, float]]:
    """One all-reduce in an NVLink domain and across InfiniBand."""
    inside = simulate(NVL72, out / f"{name}-nvl72.json", options)
    return inside, simulate(NODES_OF_8, out / f"{name}-infiniband.json", options)


def main() -> int:
    """Walk the path; the last lines say where to look and what was concluded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for the products")
    out: Path = parser.parse_args().output
    (ROOT / out).mkdir(parents=True, exist_ok=True)
    try:
        walk(out)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def walk(out: Path) -> None:
    """The path itself."""
    say("inventory: one machine's description becomes a fleet map")
    take_inventory(out)
    run(f"topology show {out}/machine.json")
    run(f"topology draw {out}/machine.json --view node -o {out}/machine.png")

    say("fabric: the way from one GPU to another, hop by hop, with the source of each figure")
    run(f"topology path {FLEET} h100-001:0 h100-002:3")

    say(f"simulate: {RANKS} ranks in one NVL72 domain, against 8 nodes of 8 over InfiniBand")
    bucket = compare(out, "nccl", f"--size {SIZE}")
    say("the same 64 ranks on the bare wire, 8 bytes: what the links alone do to the tail")
    small = compare(out, "wire", "--size 8 --stack wire")

    say("plan: a latency-bound step and a bucket of gradients on 32 DGX H100")
    run(f"topology plan {FLEET} samples/workloads/decode-tp8.yaml")
    run(f"topology plan {FLEET} samples/workloads/gradient-64.yaml -o {out}/placement.txt")

    say("draw: racks and tiers")
    run(f"topology draw {FLEET} --view racks -o {out}/racks.png")
    run(f"topology draw {NVL72} --view racks -o {out}/racks-nvl72.svg")
    run(f"topology draw {FLEET} --view fabric -o {out}/fabric.png")
    show_products(out)
    conclude(bucket, small)


def show_products(out: Path) -> None:
    """Where to look."""
    say("where to look")
    for name, what in (
        ("machine.png", "the machine's inside"),
        ("racks.png, racks-nvl72.svg", "fleets as racks and nodes"),
        ("fabric.png", "tiers, with the latency of every link class in the legend"),
        ("nccl-*.json, wire-*.json", "the simulations"),
        ("placement.txt", "the chosen placement, which topology simulate --placement reads"),
    ):
        print(f"  {out}/{name}: {what}")


def conclude(
    bucket: tuple[dict[str, float], dict[str, float]],
    small: tuple[dict[str, float], dict[str, float]],
) -> None:
    """The sentences it comes to."""
    say("what was concluded")
    print(
        f"  All-reduce over {RANKS} GPUs, one NVLink domain of 72 against 8 nodes over InfiniBand:"
    )
    for what, (inside, across) in ((f"{SIZE} with NCCL", bucket), ("8 B on the bare wire", small)):
        ratios = ", ".join(
            f"{across[key] / inside[key]:.1f} times at {name}"
            for key, name in (("p50_s", "p50"), ("p99_s", "p99"), ("p999_s", "p99.9"))
        )
        times = (
            f"{inside['p50_s'] * 1e6:.1f} us against {across['p50_s'] * 1e6:.1f} us at the median"
        )
        print(f"    {what}: {times};\n      {ratios}")
    print(
        "  Scale in while a domain has room. On 32 DGX H100 a job of 64 GPUs has topped that out\n"
        "  and crosses InfiniBand on as few nodes as it can.\n"
        "  These are predictions of the model, not measurements; README: How far to trust it."
    )


if __name__ == "__main__":
    sys.exit(main())
