"""Old home of the names of `tinv.nn.pooling`, for one minor version."""

from tinv.deprecation import moved

__getattr__ = moved(__name__, {"*": "tinv.nn.pooling"})
