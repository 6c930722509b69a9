"""The main program of a decoder process: runs one decoding function under limits and writes its results.

It imports the standard library and the module of the decoding function, nothing else. `decoder_process`
starts it and describes the messages.
"""

import ctypes
import fcntl
import importlib
import json
import math
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

# A message is a tag, the size of its payload and the payload.
HEADER = struct.Struct(">cQ")
READY, RESULT, END, REJECTED, OUT_OF_MEMORY, FAILED = b"=", b"+", b".", b"-", b"m", b"!"
# The kind of a rejection for one frame of a video; the frames before it are sound.
DAMAGED_FRAME = "damaged_frame"
# Bytes of a traceback that are sent to the parent.
MAX_TRACEBACK_BYTES = 4096

# A number of Linux' <sys/prctl.h>.
_PR_SET_PDEATHSIG = 1
# What the worker's own threads need comes first.
_NICENESS = 10
# The most that an unprivileged process may ask for by default: fewer switches between the two processes.
_PIPE_BYTES = 2**20

# Decodes input bytes by options; what it raises beside DecodeRejected is a failure of the process.
Decode = Callable[[bytes, dict[str, Any]], Iterator[bytes]]


class DecodeRejected(Exception):  # noqa: N818
    """The input is not acceptable: a kind of `service.errors.Kind` and a sentence for the client.

    A decoding function raises it instead of ServiceError, whose module takes long to import.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind, self.detail = kind, detail


def main() -> None:
    """Run the function that the only argument names, on the input that follows on standard input."""
    start = json.loads(sys.argv[1])
    _die_with_parent(start["parent"])
    # Somebody may wait for a click.
    os.nice(_NICENESS)
    _prefer_to_kill_this_process()
    results = _take_standard_output()
    try:
        decode = _function(start["function"])
        _limit(start["memory_bytes"])
    except Exception:
        _send(results, FAILED, _traceback())
        return
    try:
        _send(results, READY)
        options = json.loads(sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(8), "big")))
        _run(results, decode, sys.stdin.buffer.read(), options, start["cpu_s"])
    except BrokenPipeError:
        pass
    # Skip the finalizers of libraries that read hostile input.
    os._exit(0)


def _run(results: int, decode: Decode, data: bytes, options: dict[str, Any], cpu_s: int) -> None:
    """Send a message for every result, and one that says how the function ended."""
    try:
        _allow_cpu(cpu_s)
        for result in decode(data, options):
            _send(results, RESULT, result)
            _allow_cpu(cpu_s)
    except DecodeRejected as rejected:
        _send(results, REJECTED, json.dumps([rejected.kind, rejected.detail]).encode())
    except MemoryError:
        _send(results, OUT_OF_MEMORY)
    except BrokenPipeError:
        raise
    except Exception:
        _send(results, FAILED, _traceback())
    else:
        _send(results, END)


def _function(name: str) -> Decode:
    """Return the function that `module:function` names."""
    module, _, function = name.partition(":")
    found: Decode = getattr(importlib.import_module(module), function)
    return found


def _traceback() -> bytes:
    """Return the end of the traceback of the exception that is being handled."""
    return traceback.format_exc().encode(errors="replace")[-MAX_TRACEBACK_BYTES:]


def _send(results: int, tag: bytes, payload: bytes = b"") -> None:
    """Block until the parent has read the message, but for what the pipe holds."""
    for part in (HEADER.pack(tag, len(payload)), payload):
        view = memoryview(part)
        while view:
            view = view[os.write(results, view) :]


def _take_standard_output() -> int:
    """Return a descriptor of the results; what libraries print goes nowhere."""
    results = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    if sys.platform == "linux":
        with suppress(OSError):
            fcntl.fcntl(results, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return results


def _die_with_parent(parent: int) -> None:
    """Get killed when the parent dies; elsewhere than on Linux, end at the next write."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _prefer_to_kill_this_process() -> None:
    """Let a kernel that is out of memory end this process instead of the worker."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit(memory_bytes: int) -> None:
    """Set every limit but that on processor time, which each result renews."""
    for limit, most in (
        (resource.RLIMIT_AS, _address_space() + memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        # Open descriptors stay; there can be no further file and no socket.
        (resource.RLIMIT_NOFILE, 0),
    ):
        # Some systems know a limit and refuse to set it.
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (most, most))


def _address_space() -> int:
    """Return the bytes of address space that the imported code takes."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


def _allow_cpu(seconds: int) -> None:
    """Get killed by SIGXCPU after so much more processor time, of all threads together."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    until = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until if most < 0 else min(until, most), most))
