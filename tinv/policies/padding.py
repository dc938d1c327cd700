"""Old home of the names of `tinv.nn.padding`, for one minor version."""

from tinv.deprecation import moved

__getattr__ = moved(__name__, {"*": "tinv.nn.padding"})
