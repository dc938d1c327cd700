"""Grids of runs: a sweep file in W&B's format, its trials, the ledger of what is done, and who runs them."""
