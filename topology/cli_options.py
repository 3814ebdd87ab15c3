"""Options that several commands share, and what their texts stand for."""

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from fleet.console import STDIO
from topology.errors import WorkloadError
from topology.words import NoiseLayer, NoiseName, ProtocolChoice, StackName

if TYPE_CHECKING:
    from topology.collective.placement import Placement
    from topology.fabric.from_fleet import Fabric
    from topology.latency.scenario import MeasuredNoise

T = TypeVar("T")
LARGEST_BYTES: Final = 2**60
"""An exbibyte: no buffer is larger."""

Ranks = Annotated[
    int | None,
    typer.Option("--gpus", "--ranks", help="World size; default: all there are.", min=1),
]
Stack = Annotated[
    StackName | None,
    typer.Option(
        help="Whose software is counted: NCCL's or RCCL's, calibrated; nccl-tuner: as NCCL itself "
        "predicts; MPI's; or none, the bare wire. Default: nccl on NVIDIA GPUs, rccl on AMD's, "
        "else wire."
    ),
]
BufferSize = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        help="One rank's whole buffer, as nccl-tests counts it: 8 (bytes), 64KiB, 1GB.",
    ),
]
Where = Annotated[
    str,
    typer.Option(
        metavar="WORD|FILE",
        help="pack (fewest domains and nodes), spread (all nodes), "
        "or a FILE with one 'host slot' a line in rank order.",
    ),
]
NcclProtocol = Annotated[
    ProtocolChoice, typer.Option(help="NCCL's protocol; auto takes what NCCL takes.")
]
Noise = Annotated[NoiseName, typer.Option(help="How noisy the fabric is.")]
TRIALS = "Noisy runs to replay; default: 368, which a p99 needs, to 10000 as seconds allow."
Trials = Annotated[int | None, typer.Option(help=TRIALS, min=1)]


def placement_from_words(fabric: "Fabric", words: str, ranks: int | None) -> "Placement":
    """The placement asked for: pack or spread as many ranks as asked, or a file's."""
    from fleet import read_bytes
    from topology.collective.placement import pack, placement_from_text, spread

    place = {"pack": pack, "spread": spread}.get(words)
    if place is not None:
        return place(fabric, len(fabric.endpoints) if ranks is None else ranks)
    text = read_bytes(Path(words)).decode("utf-8", errors="replace")
    placed = placement_from_text(fabric, text, where=words)
    if ranks is not None and ranks != placed.ranks:
        text = f"{placed.ranks} lines for {ranks} ranks"
        raise WorkloadError(text, where=words, remedy="make them agree")
    return placed


def refuse_twice(*paths: str | None, what: str = "stdin") -> None:
    """Stdin can be read once, and stdout holds one document."""
    if paths.count(STDIO) > 1:
        text = f"{what} is asked for twice"
        raise WorkloadError(text, where=STDIO, remedy="give one of the two as a file")


def bytes_of(option: str, text: str) -> int:
    """What an option's size stands for, from a byte to an exbibyte. [bytes]"""
    from fleet.units import bytes_from_text

    size_bytes = _more_than_0(bytes_from_text, option, text, "give at least one byte")
    if size_bytes > LARGEST_BYTES:
        raise WorkloadError(f"{text!r} is too large", field=option, remedy="give at most 1024PiB")
    return size_bytes


def seconds_of(option: str, text: str) -> float:
    """What an option's duration stands for, more than nothing. [s]"""
    from fleet.units import seconds_from_text

    return _more_than_0(seconds_from_text, option, text, "give more than 0 s")


def map_names(paths: list[str]) -> list[str]:
    """What maps are called: their files' stems, or the paths where two of those are alike.

    >>> map_names(["a/x.json", "b/y.json.gz", "-"])
    ['x', 'y', 'stdin']
    """
    stems = ["stdin" if p == STDIO else PurePath(p).name.partition(".json")[0] for p in paths]
    return stems if len(set(stems)) == len(stems) else paths


def check_plot(plot: str, maps: int) -> None:
    """Refuse before minutes of replay what cannot be drawn after them."""
    from topology.diagram.plot_file import plot_form
    from topology.diagram.tail_plot import check_scenarios

    plot_form(plot)
    check_scenarios(maps)


def noise_from_words(words: str) -> tuple[NoiseName, "MeasuredNoise | None"]:
    """A noise profile, or a trace's noise where it has a link class and ``dedicated`` elsewhere."""
    if words in set(NoiseName):
        return NoiseName(words), None
    from fleet.console import say
    from topology.latency.scenario import MeasuredNoise
    from topology.measured.trace import read_trace

    if words != STDIO and not Path(words).exists():
        raise WorkloadError(
            f"{words!r} is no noise and no file",
            field="--noise",
            remedy=f"use {', '.join(NoiseName)}, or a CSV with column latency_ns",
        )
    trace = read_trace(words)
    say(f"{words}: {trace.warm_up_text}")
    return NoiseName.DEDICATED, MeasuredNoise(Path(words).name, trace.latencies_s)


def layers_from_words(option: str, words: str) -> frozenset[NoiseLayer]:
    """Layers of noise by their names, joined by commas; ``all`` is all, nothing is none."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    if names == ["all"]:
        return frozenset(NoiseLayer)
    for name in names:
        if name not in set(NoiseLayer):
            remedy = f"use all, or some of {','.join(NoiseLayer)}"
            raise WorkloadError(f"{name!r} is no layer of noise", field=option, remedy=remedy)
    return frozenset(map(NoiseLayer, names))


def share_of(option: str, text: str) -> float:
    """What an option's percentage stands for: ``2%`` or ``2 %`` is 0.02."""
    number, sign, rest = text.partition("%")
    try:
        if not sign or rest.strip():
            raise ValueError(text)
        return float(number) / 100
    except ValueError:
        remedy = "give a percentage, e.g. 2%"
        raise WorkloadError(f"{text!r} is no percentage", field=option, remedy=remedy) from None


def _more_than_0(convert: Callable[[str], T], option: str, text: str, remedy: str) -> T:
    """What an option's text stands for; a fault names the option."""
    from fleet.units import UnitError

    try:
        value = convert(text)
    except UnitError as error:
        raise WorkloadError(error.problem, field=option, remedy=error.remedy) from None
    if not value:
        raise WorkloadError(f"{text!r} is nothing", field=option, remedy=remedy)
    return value
