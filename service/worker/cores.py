"""Which of the processor's cores a thread runs on."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """The calling thread, and every thread that it starts meanwhile, run on these cores. Empty: on any.

    Raises ValueError for cores that are not there, or that the system lets nobody choose.
    """
    if not cores:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("this system lets nobody choose cores")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise ValueError(f"{list(cores)}: {error.strerror}") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
