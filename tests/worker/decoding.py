"""Decoding functions for the tests of decoder processes."""

import ctypes
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.worker.decoder_child import DecodeRejected


def parts(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """The input in parts of `size` bytes."""
    for begin in range(0, len(data), options["size"]):
        yield data[begin : begin + options["size"]]


def endless(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """How many results there were before, in a result of the input's size, for ever."""
    count = 0
    while True:
        yield count.to_bytes(8, "big") + data
        count += 1


def rejecting(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """One result, then a rejection."""
    yield b"first"
    raise DecodeRejected("unsupported_video", "video is of no use.")


def raising(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """A defect."""
    yield str(1 // 0).encode()


def crashing(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """A segmentation fault."""
    yield b"first"
    ctypes.string_at(0)


def sleeping(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """No result, without using the processor."""
    yield b"first"
    time.sleep(1000)


def spinning(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """No result, using the processor."""
    while True:
        pass
    yield b""


def allocating(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """As many bytes as `size`."""
    yield bytes(options["size"])[:1]


def surroundings(data: bytes, options: dict[str, Any]) -> Iterator[bytes]:
    """What it can reach: the environment, and the outcome of opening a file, a socket and a pipe."""
    yield repr(dict(os.environ)).encode()
    for attempt in (Path("/dev/null").open, socket.socket, os.pipe):
        try:
            attempt()
        except OSError as error:
            yield repr(error.errno).encode()
        else:
            yield b"reached"
    yield repr(sorted(name for name in sys.modules if "." not in name)).encode()
