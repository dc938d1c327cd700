"""Layers: convolutions and pools with any border, blurs, adaptive subsampling. They know no policy and need none."""
