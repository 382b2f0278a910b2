"""How the C library keeps freed memory, which on a CPU is a good part of a training step."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


def keep_freed_pages() -> bool:
    """Lets the next large tensor have the pages of the last one; False where the C library cannot.

    By default glibc maps each block over 32 MB anew and returns it when freed, so that the gradients of large
    experts are paged in and zeroed again at every step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
