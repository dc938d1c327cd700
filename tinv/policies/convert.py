"""Old home of the names of `tinv.surgery.convert`, for one minor version."""

from tinv.deprecation import moved

__getattr__ = moved(__name__, {"*": "tinv.surgery.convert"})
