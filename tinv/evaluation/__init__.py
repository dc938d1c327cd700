"""`tinv measure`: how invariant any network is on a folder of images, and which component breaks it."""
