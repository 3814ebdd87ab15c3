"""Export: a case in the words of the simulator that is asked for, and what it is in numbers."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from fleet.units import text_from_bytes
from topology.exports.astra_sim import astra_sim_product
from topology.exports.case import Case, Product, class_lines
from topology.exports.goal import goal_product
from topology.exports.simai import simai_product
from topology.latency.report import SCHEMA_VERSION
from topology.words import ExportFormat

PRODUCTS: Final[dict[ExportFormat, Callable[[Case, str], Product]]] = {
    ExportFormat.GOAL: goal_product,
    ExportFormat.ASTRA_SIM: astra_sim_product,
    ExportFormat.SIMAI: simai_product,
}

LARGE_BYTES: Final = 64 * 2**20
"""What is larger is told before it is written: it takes seconds and a disk. [B]"""


def export_product(case: Case, asked: ExportFormat, output: str) -> Product:
    """What an export of a case will write to ``output``, a folder or a file.

    Raises:
        WorkloadError: a collective or a number of ranks that the format has no words for.
        ScheduleError: an algorithm that it has no words for.
    """
    return PRODUCTS[asked](case, output)


def long_export_text(product: Product) -> str | None:
    """How much a large export is; None if it is soon written."""
    if product.size_bytes < LARGE_BYTES:
        return None
    what = "" if product.messages is None else f"{product.messages} messages, "
    return f"{what}about {text_from_bytes(product.size_bytes)}"


def export_document(case: Case, product: Product, files: list[str]) -> dict[str, Any]:
    """An export as JSON: what was written, the figures in it, and how to run it and ours."""
    scenario, choice = case.scenario, case.choice
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "export",
        "format": product.format.value,
        "collective": scenario.collective.value,
        "algorithm": choice.schedule.algorithm,
        "stack": choice.stack.name.value,
        "protocol": choice.stack.protocol.value if choice.stack.protocol else None,
        "ranks": case.placement.ranks,
        "size_bytes": scenario.size_bytes,
        "noiseless_s": choice.noiseless_s,
        "messages": product.messages,
        "files": files,
        "figures": [asdict(figure) for figure in product.figures],
        "routes": class_lines(case, product),
        "commands": list(product.commands),
        "own_command": case.command,
        "differs": list(product.differs),
        "unchecked": list(product.unchecked),
    }
