"""What people and programs read of a fabric: a route hop by hop, the fabric in numbers, figures."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from fleet.naming import counted, name_runs
from fleet.units import text_from_rate, text_from_seconds
from topology.fabric.from_fleet import Fabric
from topology.fabric.graph import all_links
from topology.fabric.link_figures import LinkFigures, RouteClass
from topology.fabric.routes import Endpoint, Route

SCHEMA_VERSION: Final = 1
Table: TypeAlias = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]


def route_document(fabric: Fabric, a: Endpoint, b: Endpoint, route: Route) -> dict[str, Any]:
    """A route as JSON: hops in order, their sum, its class, sources."""
    route_class = route.route_class
    return {
        "kind": "route",
        "schema_version": SCHEMA_VERSION,
        "source": str(a),
        "destination": str(b),
        "route_class": route_class.name,
        "alpha_s": route.alpha_s,
        "class_alpha_s": route_class.alpha_s,
        "extra_s": route.extra_s,
        "endpoints_s": route.endpoints_s,
        "link_bytes_per_s": route.link_bytes_per_s,
        "p2p_bytes_per_s": route.p2p_bytes_per_s,
        "jitter": route_class.jitter.model_dump(),
        "latency_confidence": route_class.latency_confidence.value,
        "jitter_confidence": route_class.jitter_confidence.value,
        "bandwidth_confidence": route_class.bandwidth_confidence.value,
        "sources": list(route_class.sources),
        "basis": route_class.basis,
        "guesses": list(fabric.guesses),
        "hops": [
            {
                "source": hop.source,
                "destination": hop.destination,
                "kind": hop.kind,
                "alpha_s": hop.alpha_s,
                "bytes_per_s": hop.bytes_per_s,
                "count": hop.count,
                "confidence": hop.confidence.value,
            }
            for hop in route.hops
        ],
    }


def route_table(route: Route) -> Table:
    """A route's hops as rows of text; the last rows are its endpoints and the total."""
    rows = [
        (
            hop.source,
            hop.destination,
            hop.kind,
            str(hop.count),
            text_from_seconds(hop.alpha_s),
            text_from_rate(hop.bytes_per_s),
            hop.confidence.value,
        )
        for hop in route.hops
    ]
    endpoints = text_from_seconds(route.endpoints_s)
    total, narrowest = text_from_seconds(route.alpha_s), text_from_rate(route.link_bytes_per_s)
    rows.append(("endpoints", "(issue, be seen)", "", "", endpoints, "", ""))
    rows.append(("total", "", "", "", total, narrowest, route.route_class.latency_confidence.value))
    return ("from", "to", "link", "links", "latency", "bandwidth", "confidence"), rows


def route_notes(fabric: Fabric, route: Route) -> list[str]:
    """Lines below a route's table: its class, what it carries, where the figures come from."""
    route_class = route.route_class
    extra = ""
    if route.extra_s > 0.5e-12:
        extra = f", and {text_from_seconds(route.extra_s)} for hops beyond the class"
    lines = [
        f"class {route_class.name}: {route_class.title}, "
        f"{text_from_seconds(route_class.alpha_s)} "
        f"({text_from_seconds(route_class.alpha_low_s)} to "
        f"{text_from_seconds(route_class.alpha_high_s)}){extra}",
        f"one sender gets {text_from_rate(route.p2p_bytes_per_s)}",
        *_plug_in_lines(route_class),
        f"basis: {route_class.basis} [{', '.join(route_class.sources)}]",
    ]
    return lines + _guess_lines(fabric)


def fabric_document(fabric: Fabric) -> dict[str, Any]:
    """A fabric in numbers, as JSON."""
    return {
        "kind": "fabric",
        "schema_version": SCHEMA_VERSION,
        "nodes": len(fabric.nodes),
        "gpus": fabric.fleet.gpu_count,
        "shapes": [
            {"id": shape, "nodes": count}
            for shape, count in Counter(node.shape for node in fabric.fleet.nodes).items()
        ],
        "nvlink_domains": [
            {"size": size, "count": count} for size, count in sorted(_domain_sizes(fabric).items())
        ],
        "switches": [
            {"tier": tier, "count": n} for tier, n in sorted(_tier_counts(fabric).items())
        ],
        "links": [
            {
                "kind": kind,
                "count": count,
                "alpha_s": fabric.figures.edge[kind].alpha_s,
                "confidence": fabric.figures.edge[kind].confidence.value,
            }
            for kind, count in link_counts(fabric).items()
        ],
        "guesses": list(fabric.guesses),
    }


def fabric_lines(fabric: Fabric) -> list[str]:
    """A fabric in a few lines of text."""
    shapes = Counter(node.shape for node in fabric.fleet.nodes)
    sizes = _domain_sizes(fabric)
    domains = ", ".join(f"{sizes[size]} of {size}" for size in sorted(sizes, reverse=True))
    tiers = ", ".join(
        f"{count} {TIER_NAMES.get(tier, f'tier {tier}')}"
        for tier, count in sorted(_tier_counts(fabric).items())
    )
    free = sum(1 for endpoint in fabric.endpoints if fabric.is_free(endpoint))
    what = "GPU" if fabric.fleet.gpu_count else "CPU rank"
    without = sum(1 for node in fabric.nodes if not node.graph.is_gpu_node)
    aside = f" ({without:,} without GPUs)" if without and fabric.fleet.gpu_count else ""
    return [
        f"{counted(len(fabric.nodes), 'node')}{aside}, "
        f"{counted(len(fabric.endpoints), what)}, {free:,} free",
        f"shapes: {', '.join(f'{shape} x {count}' for shape, count in shapes.items())}",
        f"NVLink domains: {domains if any(size > 1 for size in sizes) else 'none of more than 1'}",
        f"switches: {tiers or 'none known'}",
        *_guess_lines(fabric),
    ]


def _guess_lines(fabric: Fabric) -> list[str]:
    """What was guessed, once for all GPUs of a wiring that it was guessed of."""
    gpus: dict[tuple[str, str], list[str]] = defaultdict(list)
    for guess in fabric.guesses:
        subject, _, text = guess.partition(": ")
        name, _, gpu = subject.partition(" ")
        gpus[name, text] += [gpu] if gpu else []
    return [
        f"guess: {' '.join((name, ', '.join(name_runs(slots)))).strip()}: {text}"
        for (name, text), slots in gpus.items()
    ]


TIER_NAMES: Final = {0: "leaf", 1: "spine", 2: "core"}


def links_table(fabric: Fabric) -> Table:
    """Link kinds with how many there are (one direction each) and their latency."""
    rows = []
    for kind, count in link_counts(fabric).items():
        edge = fabric.figures.edge[kind]
        latency = text_from_seconds(edge.alpha_s)
        rows.append((kind, edge.title, f"{count:,}", latency, edge.confidence.value))
    return ("link", "what", "links", "latency", "confidence"), rows


def link_counts(fabric: Fabric) -> dict[str, int]:
    """Links by kind over the whole fleet, one direction each, most latency last."""
    per_graph: dict[int, Counter[str]] = {}
    total: Counter[str] = Counter()
    for node in fabric.nodes:
        if id(node.graph) not in per_graph:
            counts = per_graph[id(node.graph)] = Counter()
            for _, _, link in all_links(node.graph.graph):
                counts[link.kind] += link.count
        total.update(per_graph[id(node.graph)])
    for _, _, link in all_links(fabric.network.graph):
        total[link.kind] += link.count
    order = sorted(total, key=lambda kind: (fabric.figures.edge[kind].alpha_s, kind))
    return {kind: total[kind] for kind in order}


def _domain_sizes(fabric: Fabric) -> Counter[int]:
    return Counter(len(domain.endpoints) for domain in fabric.domains)


def _tier_counts(fabric: Fabric) -> dict[int, int]:
    counts: dict[int, int] = defaultdict(int)
    for tier in fabric.network.tier_of.values():
        counts[tier] += 1
    return dict(counts)


def figures_document(figures: LinkFigures, stack: dict[str, Any]) -> dict[str, Any]:
    """Every figure with unit, source and confidence, as JSON."""
    return {
        "kind": "figures",
        "schema_version": SCHEMA_VERSION,
        "link": figures.model_dump(mode="json"),
        "stack": stack,
    }


def _plug_in_lines(route_class: RouteClass) -> list[str]:
    """What the network's plug-in declares, where it declares anything."""
    if not route_class.declared_s:
        return []
    declared = text_from_seconds(route_class.declared_s)
    return [f"with NCCL: the plug-in declares {declared} a hop, beside NCCL's own constants"]


def route_class_table(figures: LinkFigures) -> Table:
    """All route classes as rows of text."""
    header = ("route class", "latency", "range", "plug-in", "GB/s", "p2p", "coll.", "jitter p50+")
    rows = [_class_row(row) for row in figures.route_class.values()]
    return (*header, "detour", "conf. lat/bw/jitter", "sources"), rows


def _class_row(row: RouteClass) -> tuple[str, ...]:
    jitter = row.jitter
    confidences = (row.latency_confidence, row.bandwidth_confidence, row.jitter_confidence)
    return (
        row.name,
        text_from_seconds(row.alpha_s),
        f"{text_from_seconds(row.alpha_low_s)} to {text_from_seconds(row.alpha_high_s)}",
        f"+ {text_from_seconds(row.declared_s)}" if row.declared_s else "-",
        f"{row.bytes_per_s / 1e9:g}",
        f"{row.p2p_efficiency_ratio:g}",
        f"{row.collective_efficiency_ratio:g}",
        f"{text_from_seconds(jitter.body_median_s)} (sigma {jitter.body_sigma:g})",
        f"{jitter.detour_probability:g} x {text_from_seconds(jitter.detour_median_s)}",
        "/".join(confidence.value for confidence in confidences),
        " ".join(row.sources),
    )


def link_rate_table(figures: LinkFigures) -> Table:
    """Rates of links by generation as rows of text."""
    rows = [
        (
            row.name,
            text_from_rate(row.bytes_per_s),
            row.confidence.value,
            " ".join(row.sources),
            row.basis,
        )
        for row in figures.link_rate
    ]
    rows += [
        (
            f"trunks, {row.name} routing",
            f"x {row.share_ratio:g}",
            row.confidence.value,
            " ".join(row.sources),
            row.basis,
        )
        for row in figures.trunk_share.values()
    ]
    return ("link", "bandwidth", "confidence", "sources", "basis"), rows


def noise_table(figures: LinkFigures) -> Table:
    """Noise profiles as rows of text."""
    rows = [
        (
            row.name,
            f"x {row.detour_probability_ratio:g}",
            f"x {row.detour_median_ratio:g}",
            row.confidence.value,
            " ".join(row.sources),
            row.basis,
        )
        for row in figures.noise_profile.values()
    ]
    return ("noise", "detours", "their median", "confidence", "sources", "basis"), rows


def noise_layer_table(figures: LinkFigures) -> Table:
    """Noise beyond single messages, by layer and profile, as rows of text."""
    rows = [
        (layer, profile, row.text, row.confidence.value, " ".join(row.sources), row.basis)
        for layer, profile, row in figures.noise_layer.rows()
        if row.sources
    ]
    return ("layer", "noise", "figures", "confidence", "sources", "basis"), rows


def edge_table(figures: LinkFigures) -> Table:
    """All edges as rows of text."""
    rows = [
        (
            edge.name,
            edge.title,
            text_from_seconds(edge.alpha_s),
            text_from_seconds(edge.jitter_s),
            edge.confidence.value,
            " ".join(edge.sources),
        )
        for edge in figures.edge.values()
    ]
    return ("edge", "what", "latency", "median jitter", "confidence", "sources"), rows
