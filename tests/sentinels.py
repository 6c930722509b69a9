"""A Redis that its replica takes over from: two servers, and three sentinels that watch them."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis

from service.processes import redis_command
from tests.redis_server import RedisServer
from tests.serving import free_ports

_NAME, _PASSWORD, _OWN_PASSWORD = "tracked", "of-the-servers", "of-the-sentinels"
_READY_S = 60.0


class Sentinels:
    """Servers and sentinels have a password each. All listen on loopback."""

    def __init__(self, folder: Path) -> None:
        # Whichever is stopped first does not wait for the other to have followed it.
        authenticated = ("--masterauth", _PASSWORD, "--shutdown-timeout", "0")
        self.first = RedisServer(folder / "first", password=_PASSWORD, options=authenticated)
        replica = (*authenticated, "--replicaof", f"127.0.0.1 {self.first.port}")
        self.second = RedisServer(folder / "second", password=_PASSWORD, options=replica)
        self._folder, self._ports = folder, free_ports(3)

    @property
    def url(self) -> str:
        """Where the service finds the master."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self._ports)
        return f"redis+sentinel://:{_PASSWORD}@{hosts}/{_NAME}/0?sentinel_password={_OWN_PASSWORD}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Started here, and stopped at the end. They know each other, and the replica."""
        with ExitStack() as stack:
            stack.enter_context(self.first.running())
            stack.enter_context(self.second.running())
            for port in self._ports:
                stack.enter_context(self._sentinel(port))
            for port in self._ports:
                self._until_known(port)
            yield

    def roles(self) -> set[str]:
        """What the two servers, which run both, take themselves for; one that is just told so hangs up."""
        found = set[str]()
        for server in (self.first, self.second):
            with server.client() as client, suppress(redis.exceptions.ConnectionError):
                found.add(str(client.info("replication")["role"]))
        return found

    @contextmanager
    def _sentinel(self, port: int) -> Iterator[None]:
        file = self._folder / f"sentinel-{port}.conf"
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"requirepass {_OWN_PASSWORD}",
            f"sentinel sentinel-pass {_OWN_PASSWORD}",
            f"sentinel monitor {_NAME} 127.0.0.1 {self.first.port} 2",
            f"sentinel auth-pass {_NAME} {_PASSWORD}",
            # A server that merely waits for a core of a busy machine is not taken for a dead one.
            f"sentinel down-after-milliseconds {_NAME} 3000",
            f"sentinel failover-timeout {_NAME} 5000",
        ]
        file.write_text("\n".join(lines) + "\n")
        binary, *_ = redis_command(port, self._folder, "no")
        with (self._folder / f"sentinel-{port}.log").open("wb") as log:
            process = subprocess.Popen([binary, str(file), "--sentinel"], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)

    def _until_known(self, port: int) -> None:
        until = time.monotonic() + _READY_S
        with redis.Redis(port=port, password=_OWN_PASSWORD) as sentinel:
            while time.monotonic() < until:
                try:
                    known = sentinel.sentinel_master(_NAME)
                except redis.exceptions.ConnectionError:
                    known = {}
                if known.get("num-other-sentinels") == 2 and known.get("num-slaves") == 1:
                    return
                time.sleep(0.1)
        raise RuntimeError(f"the sentinel on {port} knows only {known}")
