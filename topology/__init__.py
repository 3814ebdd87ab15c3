"""fleetmap's topology: links with latencies, collectives, percentiles, plans, diagrams."""
