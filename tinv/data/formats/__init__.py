"""How files are read: images, videos and patches, and the caches of what was read. Nothing here knows a data set."""
