"""What is done with memory that was freed."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt, as malloc.h numbers them."""


def keep_freed_memory() -> None:
    """Lets this process use freed memory again instead of giving it back to the system, where the C library is glibc.

    The activations of a network on a CPU come and go with every layer. glibc returns those of over 32 MB at once, and
    the system clears every page anew when the next layer writes to it: up to half of the time of a large network.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
