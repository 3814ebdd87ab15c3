"""Probe: the program that reads one node, on the node. Standard library and pynvml, Python 3.6."""
