"""`efficientsam3 serve` with fake workers: `python -m tests.gateway.serve_fakes 2 demo`."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import psutil

from service.config import ServeSettings
from service.gateway.facts import describe
from service.supervisor import serve
from service.telemetry import configure_logging


class Served:
    """A supervisor in a process of its own."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "tests.gateway.serve_fakes", *arguments]
        # A killed supervisor leaves the folder of its sockets behind.
        variables = {**os.environ, "TMPDIR": str(log.parent), **environment}
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, env=variables, stdout=output, stderr=output)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return when the log has the pattern."""
        for _ in range(600):
            if found := re.search(pattern, self.log.read_text()):
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} is not in the log:\n{self.log.read_text()}")

    def __enter__(self) -> "Served":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def url(self) -> str:
        return self.wait_for(r"HTTP (http://\S+),")[1]

    @property
    def grpc_url(self) -> str:
        return f"grpc://{self.wait_for(r'gRPC ([^ ]+[0-9])')[1]}"

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "tests.gateway.fake_worker" in child.cmdline()]

    def folder(self) -> Path:
        """The folder of the workers' sockets."""
        return Path(self.workers()[0].cmdline()[-2].removeprefix("unix:")).parent


def command(variant: str, address: str, parent_fd: int) -> Sequence[str]:
    """The command line of a fake worker; of "broken", one that exits at once."""
    if variant == "broken":
        return [sys.executable, "-c", "raise SystemExit(3)"]
    return [sys.executable, "-m", "tests.gateway.fake_worker", variant, address, str(parent_fd)]


def main(per_variant: int, variants: list[str]) -> None:
    settings = ServeSettings(http_port=0, grpc_port=0, probe_interval_s=0.05)
    configure_logging(settings)
    say = lambda line: print(line, flush=True)  # noqa: E731
    asyncio.run(serve(settings, variants, per_variant, command, describe, say))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
