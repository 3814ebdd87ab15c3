"""README of an export: how to run it, our own run beside it, the figures and what differs."""

from collections.abc import Iterable

from fleet.units import text_from_seconds
from topology.exports.case import Case, Product, case_text, class_lines

SIMULATORS = {
    "goal": "LogGOPSim",
    "astra-sim": "ASTRA-sim",
    "simai": "SimAI",
}


def readme_text(case: Case, product: Product) -> str:
    """What stands in README.txt beside the files."""
    name = SIMULATORS[product.format.value]
    figures = [f"{figure.name}: {figure.value}; {figure.source}" for figure in product.figures]
    sections = (
        (f"The same case for {name}", [case_text(case), *_count(product)]),
        (f"Run {name}, from this folder", [*product.build, "", *product.commands]),
        ("Run ours, percentiles and all", [case.command, _noiseless(case)]),
        ("Figures in these files", figures),
        ("The routes behind them", class_lines(case, product)),
        ("Where the models differ", product.differs),
        ("Not checked", product.unchecked),
    )
    return "\n".join(_section(title, lines) for title, lines in sections)


def _section(title: str, lines: Iterable[str]) -> str:
    body = "".join(f"  {line}".rstrip() + "\n" for line in lines)
    return f"{title}\n{body}"


def _count(product: Product) -> list[str]:
    return [] if product.messages is None else [f"{product.messages} messages"]


def _noiseless(case: Case) -> str:
    launch_s = case.choice.costs.launch_s
    part = f", {text_from_seconds(launch_s)} of it launch" if launch_s else ""
    return f"without noise ours is {text_from_seconds(case.choice.noiseless_s)}{part}"
