"""Returns freed memory to the operating system: one large request does not enlarge a process for good."""

import asyncio
import ctypes
import gc
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

_LOG = logging.getLogger(__name__)

_INTERVAL_S = 5.0
# Growth since the last release; less is not worth a collection.
_GROWTH_BYTES = 4 * 1024 * 1024
_STATUS = Path("/proc/self/statm")
# Options of glibc's mallopt(3), and their values.
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE_BYTES, _ARENAS = 1024 * 1024, 2


def bound_allocator() -> None:
    """Have glibc return large blocks to the operating system as soon as they are freed.

    By default it raises the size of such blocks up to 32 MiB, the size of a message, and gives each thread an
    arena of its own. Elsewhere than with glibc the function does nothing.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


@asynccontextmanager
async def releasing_memory() -> AsyncIterator[None]:
    """Collect garbage and trim the allocator whenever the process has grown during the block.

    Enter it when the process has loaded what it keeps: those objects are never examined again. Two things
    hold memory after a large request: reference cycles of exceptions and frames, which the collector reaches
    late because they are few, and free blocks that the C library keeps for its next allocation. Nothing is
    done on systems without glibc and /proc.
    """
    trim = _trim_function()
    if trim is None:
        yield
        return
    releasing = asyncio.create_task(_release_memory(trim))
    try:
        yield
    finally:
        releasing.cancel()


async def _release_memory(trim: Callable[[], None]) -> None:
    gc.collect()
    gc.freeze()
    held, again = _resident_bytes(), False
    while True:
        await asyncio.sleep(_INTERVAL_S)
        before = _resident_bytes()
        # What a release leaves may have been in use, so another one follows one that releases much.
        if again or before > held + _GROWTH_BYTES:
            gc.collect()
            # It releases the interpreter's lock.
            await asyncio.to_thread(trim)
            held = _resident_bytes()
            again = before > held + _GROWTH_BYTES
            _LOG.debug("memory was released: %d MiB are resident", held // 2**20)


def _trim_function() -> Callable[[], None] | None:
    """Return a function that gives free blocks back, or None where there is none."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    if not _STATUS.exists():
        return None

    def trim() -> None:
        malloc_trim(0)

    return trim


def _resident_bytes() -> int:
    """Return the memory that the process holds now."""
    return int(_STATUS.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
