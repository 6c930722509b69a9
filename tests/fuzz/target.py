"""The service that is fuzzed: `efficientsam3 serve` with keys and small caches, its processes and its log."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.keys import KeysFile, secret
from tests.place import DEMO
from tests.serving import Serving

TTL_S = 30
# Both without limits: what is refused as too much is a finding.
KEYS = ("alice", "bob")
_MIB = 1024 * 1024
# Caches fill during warm-up and stay as they are; with the usual sizes they would grow for hours.
_SETTINGS = {
    "allow_image_urls": True,
    "max_image_url_seconds": 1,
    "embedding_cache_bytes": 4 * _MIB,
    "feature_cache_bytes": 8 * _MIB,
    "max_kept_image_bytes": 4 * _MIB,
    "hot_session_bytes": 8 * _MIB,
    "session_ttl_s": TTL_S,
    "max_session_ttl_s": TTL_S,
    "image_ttl_s": TTL_S,
    "max_sessions": 100_000,
    "log_level": "WARNING",
}
_SAMPLES = 5


class Target:
    """A running service, and what its processes hold."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.pids = self._pids()

    def memory(self) -> dict[str, int]:
        """Resident bytes of the gateway, and of the worker with its children: the least of some samples."""
        samples = []
        for _ in range(_SAMPLES):
            samples.append(
                {name: _resident(pid) for name, pid in zip(("gateway", "worker"), self._pids(), strict=False)}
            )
            time.sleep(0.2)
        return {name: min(sample.get(name, 0) for sample in samples) for name in samples[0]}

    def lost(self) -> str:
        """Which process is not the one that it was; empty: none."""
        if self.serving.process.poll() is not None:
            return f"the gateway exited with code {self.serving.process.returncode}"
        now = self._pids()
        return "" if now == self.pids else f"processes {self.pids} became {now}"

    def accept_pids(self) -> None:
        """Take the processes of now for the right ones."""
        self.pids = self._pids()

    def failure(self, request_id: str) -> str:
        """The traceback that the log has under a request's id, in one line; empty: none."""
        text = self.serving.log.read_text(errors="replace")
        at = text.rfind(request_id) if request_id else -1
        if at < 0:
            return ""
        frame = ""
        for line in text[at:].splitlines()[1:80]:
            if found := re.match(r'\s+File ".*/((?:service|model_store)/.*)", line (\d+)', line):
                frame = f"{found[1]}:{found[2]}"
            if re.match(r"[\w.]+(Error|Exception|Interrupt|Iteration)\b", line):
                return f"{line[:200]} [{frame}]"
        return ""

    def _pids(self) -> list[int]:
        workers = sorted(
            each.pid for each in self.serving.workers() if each.ppid() == self.serving.process.pid
        )
        return [self.serving.process.pid, *workers]


def _resident(pid: int) -> int:
    """Of a process; of a worker with all its children; a gateway's children are the workers."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        total = int(process.memory_info().rss)
        if "worker" in process.cmdline():
            for child in process.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    total += int(child.memory_info().rss)
    return total


@contextmanager
def running(folder: Path) -> Iterator[Target]:
    """The embedded student behind a gateway and a worker, with two keys, meanwhile."""
    keys = KeysFile(folder / "keys.toml", **{name: {} for name in KEYS})
    with Serving(DEMO, folder / "log", keys_file=keys.path, **_SETTINGS) as serving:
        yield Target(serving)


def key(index: int) -> str:
    """The key of the process with that index."""
    return secret(KEYS[index % len(KEYS)])
