"""Old home of the names of `tinv.graph.analysis`, for one minor version."""

from tinv.deprecation import moved

__getattr__ = moved(__name__, {"*": "tinv.graph.analysis"})
