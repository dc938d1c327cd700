"""Changes a network: puts padding and subsampling policies on its graph."""
