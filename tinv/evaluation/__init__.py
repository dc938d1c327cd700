"""`tinv measure`: how invariant any network is on a folder of images, and what in it is to blame."""
