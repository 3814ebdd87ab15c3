"""Exports: the same case in the words of other simulators, one file per consumer."""
