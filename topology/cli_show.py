"""``topology show`` and ``path``: links with their latency, and the way between two GPUs."""

from typing import Annotated

import typer

from fleet.console import AsJson, FleetFile, print_json, print_table


def show(fleet_file: FleetFile, as_json: AsJson = False) -> None:
    """Say what the fabric consists of: domains, tiers, links with their latency."""
    from topology.fabric.from_fleet import load_fabric
    from topology.fabric.report import fabric_document, fabric_lines, links_table

    fabric = load_fabric(fleet_file)
    if as_json:
        print_json(fabric_document(fabric))
        return
    print("\n".join(fabric_lines(fabric)))
    print_table(*links_table(fabric), right=(2,))


def path(
    fleet_file: FleetFile,
    a: Annotated[str, typer.Argument(help="From: host:slot or a GPU's UUID.", metavar="A")],
    b: Annotated[str, typer.Argument(help="To: host:slot or a GPU's UUID.", metavar="B")],
    as_json: AsJson = False,
) -> None:
    """Print the way between two GPUs hop by hop; exit 1 if no link joins them."""
    from topology.fabric.from_fleet import load_fabric
    from topology.fabric.report import route_document, route_notes, route_table

    fabric = load_fabric(fleet_file)
    ends = fabric.endpoint_from_text(a), fabric.endpoint_from_text(b)
    route = fabric.reachable_route(*ends)
    if as_json:
        print_json(route_document(fabric, *ends, route))
        return
    print_table(*route_table(route), right=(3, 4, 5))
    print("\n".join(route_notes(fabric, route)))
