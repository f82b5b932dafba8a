"""What the package is allowed to use of the machine: cores, and memory that it gives back."""

from __future__ import annotations

import contextlib
import ctypes
import os


def usable_cores() -> int:
    """Returns how many of the processor's cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def return_freed_memory() -> None:
    """Gives freed memory back to the system where the C library is glibc, which keeps it for later allocations."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
