"""The whole path once, by the commands a person would type: inventory, map, simulate, plan, draw.

Run by ``make demo``. Every command is printed before it runs; products go to the output folder.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CAPTURE = "samples/captures/dgx-h100-01"
NVL72 = "samples/fleets/gb200-nvl72-2.json.gz"
NODES_OF_8 = "samples/fleets/dgx-h100-9-ib.json"
FLEET = "samples/fleets/dgx-h100-32.json.gz"
SIZE = "1MiB"
RANKS = 64


class DemoError(Exception):
    """A command of the demo failed."""


def run(command: str, *, keep: Path | None = None) -> str:
    """Run a command of ours, show it and what it prints; ``keep`` takes the output instead."""
    print(f"\n$ {command}" + (f" > {keep}" if keep else ""), flush=True)
    words = shlex.split(command)
    program = Path(sys.executable).parent / words[0]
    done = subprocess.run(
        [str(program), *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise DemoError(f"{command}: exit {done.returncode}\n{done.stderr}")
    if keep is not None:
        keep.write_text(done.stdout)
    else:
        print(done.stdout, end="")
    return done.stdout


def say(text: str) -> None:
    """A line of the story."""
    print(f"\n== {text}", flush=True)


def take_inventory(out: Path) -> None:
    """Map this machine if an NVIDIA driver answers, else a sample capture, and say which."""
    try:
        run(f"fleet inventory -o {out}/machine.json")
        say("that was this machine, read through its NVIDIA driver")
    except DemoError as error:
        print(str(error).splitlines()[-1])
        say(f"no NVIDIA driver answers here: the machine below is a sample capture, {CAPTURE}")
        run(f"fleet inventory --from {CAPTURE} -o {out}/machine.json")


def simulate(fleet: str, name: str, out: Path) -> dict[str, float]:
    """Percentiles of the demo's collective on a fleet, as text for people and kept as JSON."""
    options = f"--collective all_reduce --size {SIZE} --gpus {RANKS}"
    run(f"topology simulate {fleet} {options}")
    kept = run(f"topology simulate {fleet} {options} --json", keep=out / f"{name}.json")
    document = json.loads(kept)
    return {key: float(document[key]) for key in ("p50_s", "p99_s", "p999_s")}


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
    inside = simulate(NVL72, "nvl72", out)
    across = simulate(NODES_OF_8, "infiniband", out)

    say("plan: a latency-bound step and a bucket of gradients on 32 DGX H100")
    run(f"topology plan {FLEET} samples/workloads/decode-tp8.yaml")
    run(f"topology plan {FLEET} samples/workloads/gradient-64.yaml -o {out}/placement.txt")

    say("draw: racks and tiers")
    run(f"topology draw {FLEET} --view racks -o {out}/racks.png")
    run(f"topology draw {NVL72} --view racks -o {out}/racks-nvl72.svg")
    run(f"topology draw {FLEET} --view fabric -o {out}/fabric.png")
    conclude(out, inside, across)


def conclude(out: Path, inside: dict[str, float], across: dict[str, float]) -> None:
    """What to look at, and the sentence it comes to."""
    say("where to look")
    for name, what in (
        ("machine.png", "the machine's inside"),
        ("racks.png, racks-nvl72.svg", "fleets as racks and nodes"),
        ("fabric.png", "tiers, with the latency of every link class in the legend"),
        ("nvl72.json, infiniband.json", "the two simulations"),
        ("placement.txt", "the chosen placement, which topology simulate --placement reads"),
    ):
        print(f"  {out}/{name}: {what}")
    say("what was concluded")
    ratio = {key: across[key] / inside[key] for key in inside}
    print(
        f"  An all-reduce of {SIZE} over {RANKS} GPUs takes {inside['p50_s'] * 1e6:.0f} us in one "
        f"NVLink domain of 72 and {across['p50_s'] * 1e6:.0f} us over InfiniBand on 8 nodes of 8:\n"
        f"  {ratio['p50_s']:.1f} times longer at the median, {ratio['p99_s']:.1f} at p99, "
        f"{ratio['p999_s']:.1f} at p99.9. Scale in while a domain has room; on 32 DGX H100 a\n"
        "  64-GPU job has topped that out and crosses InfiniBand on as few nodes as it can."
    )
    print("  These are predictions of the model (stack nccl), not measurements.")


if __name__ == "__main__":
    sys.exit(main())
