"""Gather: many nodes to one map, over ssh, srun, a spool folder or agents."""
