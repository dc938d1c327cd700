"""Configurations: how files and options become one, which keys there are, and which of them say what a run is."""
