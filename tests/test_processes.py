"""What a benchmark starts beside itself."""

import os
import subprocess
import sys

import psutil

_COUNTS = "from service.processes import counting\nwith counting({cores}): print('on', flush=True); input()"


def test_what_counts_ends_with_whoever_was_killed() -> None:
    cores = sorted(os.sched_getaffinity(0))[:1]
    command = [sys.executable, "-c", _COUNTS.format(cores=cores)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"on\n"
        (child,) = psutil.Process(process.pid).children()
        assert child.cpu_affinity() == cores
        process.kill()
    child.wait(timeout=30)
