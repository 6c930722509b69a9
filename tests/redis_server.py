"""A redis-server process that a test can start, kill and start again on the same data."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis

from service.processes import redis_command
from tests.serving import free_ports


class RedisServer:
    """Listens on loopback, and keeps its data in an append-only file in `folder`."""

    def __init__(
        self, folder: Path, sync: str = "always", *, password: str = "", options: Sequence[str] = ()
    ) -> None:
        """`sync`: its `appendfsync`. `options`: more of its command's."""
        folder.mkdir(parents=True)
        self.folder, self._sync = folder, sync
        self._who = f":{password}@" if password else ""
        self._options = (*options, *(("--requirepass", password) if password else ()))
        (self.port,) = free_ports(1)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{self._who}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and return when it answers."""
        command = [*redis_command(self.port, self.folder, self._sync), *self._options]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        for _ in range(200):
            if self._answers():
                return
            time.sleep(0.05)
        raise RuntimeError(f"redis-server does not answer:\n{(self.folder / 'log').read_text()}")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Started here, and stopped at the end."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def _answers(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.exceptions.RedisError:
                return False

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It stands still meanwhile: takes connections, and answers nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """A client of it; use it as a context manager."""
        return redis.Redis.from_url(self.url)

    def file(self) -> Path:
        """Where every write goes."""
        (file,) = (self.folder / "appendonlydir").glob("*.incr.aof")
        return file

    def lose(self, size: int) -> None:
        """Kill it, and leave so many bytes of its file: what a power cut may leave of writes that were not
        synced. It is started again."""
        self.kill()
        os.truncate(self.file(), size)
        self.start()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=10)
