"""The agent: reads its node on an interval, keeps the last good snapshot, spools and serves it.

It runs as a process of its own (``python -m fleet.agent``), without the command line's packages:
what it imports is what it weighs.
"""
