"""How much memory there is, and what is done with what was freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt, as malloc.h numbers them."""

NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad_alloc|Unable to allocate|"
    r"(size calculation|arithmetic) overflowed|overflowed with sizes|array is too big|Maximum allowed dimension|"
    r"Overflow when unpacking long",
    re.IGNORECASE,
)
"""What libraries say of memory that cannot be had."""


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


def memory_here() -> int:
    """Returns the bytes of memory that this process may have: the machine's, or less in a container."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        found = min(found, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return found
