"""Measures the largest resident size of this process."""

from pathlib import Path


def peak(reset: bool = False) -> int:
    """Return the largest resident size in bytes since the last reset; `reset` begins anew."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no peak is reported")
