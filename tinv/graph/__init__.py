"""Reads a network: its traced graph, the grid of every activation, and which shifts it is exactly invariant to."""
