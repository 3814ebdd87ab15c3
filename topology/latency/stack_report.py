"""What people read of the figures of stacks."""

from typing import Final

from fleet.units import text_from_bytes, text_from_seconds
from topology.fabric.report import Table
from topology.latency.stack import (
    InSwitchFigures,
    LaunchFigures,
    MpiFigures,
    NcclFigures,
    PipelineFigures,
    PriorFigures,
    ProtocolFigures,
    StackFigures,
)


def stack_table(figures: StackFigures) -> Table:
    """All figures of stacks as rows of text."""
    header = ("stack figure", "value", "confidence", "sources", "basis")
    rows: list[tuple[str, ...]] = []
    for protocol, row in figures.protocol.items():
        told = [(f"{protocol} base, {f}", getattr(row.base_s, f)) for f in _FAMILIES]
        for kind, hop in row.hop_s.items():
            told += [(f"{protocol} hop over {kind}, {f}", getattr(hop, f)) for f in _FAMILIES]
        tail = _tail(row)
        rows += [(name, text_from_seconds(value), *tail) for name, value in told]
        rows.append((f"{protocol} payload", f"{row.payload_ratio:g}", *tail))
        if row.in_switch is not None:
            leg = text_from_seconds(row.in_switch.leg_s)
            rows.append((f"{protocol} leg in the switch", leg, *_tail(row.in_switch)))
        if row.nvls_tree is not None:
            tree, tail = row.nvls_tree, _tail(row.nvls_tree)
            rows.append(
                (f"{protocol} leg in the switch, nvls_tree", text_from_seconds(tree.leg_s), *tail)
            )
            rows.append(
                (f"{protocol} hop over net, nvls_tree", text_from_seconds(tree.net_hop_s), *tail)
            )
    for launch, start in figures.launch.items():
        tail = _tail(start)
        rows.append((f"launch by {launch}", text_from_seconds(start.once_s), *tail))
        further = text_from_seconds(start.per_further_gpu_s)
        rows.append((f"launch by {launch}, each further GPU", further, *tail))
    prior = figures.prior
    told_priors = {
        **{f"prior, point to point by {p}": s for p, s in prior.point_to_point_s.items()},
        "prior, one further peer": prior.peer_s,
        "prior, one-shot kernel": prior.one_shot_s,
        "prior, two-shot kernel": prior.two_shot_s,
        "prior, links filling up": prior.ramp_s,
    }
    rows += [(name, text_from_seconds(s), *_tail(prior)) for name, s in told_priors.items()]
    message = text_from_seconds(figures.mpi.message_s)
    rows.append(("MPI, each message", message, *_tail(figures.mpi)))
    contained = text_from_seconds(figures.nccl.contained_launch_s)
    rows.append(("launch in each base", contained, *_tail(figures.nccl)))
    rows.append(("piece", text_from_bytes(figures.pipeline.piece_bytes), *_tail(figures.pipeline)))
    rows.append(("most pieces", str(figures.pipeline.most_pieces), *_tail(figures.pipeline)))
    return header, rows


def _tail(
    row: ProtocolFigures
    | InSwitchFigures
    | LaunchFigures
    | PipelineFigures
    | NcclFigures
    | MpiFigures
    | PriorFigures,
) -> tuple[str, str, str]:
    return row.confidence.value, " ".join(row.sources), row.basis


_FAMILIES: Final = ("ring", "tree")
