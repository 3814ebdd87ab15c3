"""``topology figures``: every figure that the model rests on, printed."""

from fleet.console import AsJson, print_json, print_table


def figures(as_json: AsJson = False) -> None:
    """Print every figure of links and stacks with unit, source and confidence."""
    from topology.fabric.link_figures import load_link_figures
    from topology.fabric.report import (
        edge_table,
        figures_document,
        link_rate_table,
        noise_layer_table,
        noise_table,
        route_class_table,
    )
    from topology.latency.calibrated_figures import (
        calibrated_document,
        calibrated_table,
        tuner_table,
    )
    from topology.latency.calibration import load_calibration
    from topology.latency.nccl_figures import load_nccl_figures
    from topology.latency.stack import load_stack_figures
    from topology.latency.stack_report import stack_table

    links, stacks = load_link_figures(), load_stack_figures()
    calibration, tuner = load_calibration(), load_nccl_figures()
    if as_json:
        document = figures_document(links, stacks.model_dump(mode="json"))
        print_json(document | calibrated_document(calibration, tuner))
        return
    tables = route_class_table(links), link_rate_table(links), edge_table(links)
    noises = noise_table(links), noise_layer_table(links)
    for table in (*tables, *noises, stack_table(stacks), tuner_table(tuner)):
        print_table(*table)
        print()
    print_table(*calibrated_table(calibration), right=(1, 2, 3))
    print()
    print_table(("source", "what"), sorted({**stacks.source, **links.source}.items()))
