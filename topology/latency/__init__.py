"""Latency: cost and noise of a schedule become a distribution of its completion time."""
