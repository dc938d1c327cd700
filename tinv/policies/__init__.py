"""What is varied: how convolutions and pools treat the border (padding) and how maps are thinned out (subsampling)."""
