"""Two gateways, two workers, a Redis with a replica, and links between all of them."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import httpx
import redis.exceptions
from redis import Redis

from tests.chaos.history import Crash, Fault, History, Sample
from tests.chaos.links import Link
from tests.deployment import Process
from tests.place import DEMO
from tests.redis_server import RedisServer
from tests.serving import free_ports

GATEWAYS = WORKERS = 2
_READY_S = 300.0
_PREFIX = "efficientsam3:session:"
# A session outlives the piece that opened it, so that none expires.
_SESSION_TTL_S = 3600


class Store:
    """A Redis and its replica. The workers reach whichever is the primary now."""

    def __init__(self, folder: Path) -> None:
        options = ("--replica-serve-stale-data", "yes", "--repl-diskless-sync-delay", "0", "--save", "")
        self.primary = RedisServer(folder / "redis-0", options=options)
        self.replica = RedisServer(folder / "redis-1", options=options)
        self.replication = Link(self.primary.port)

    def start(self) -> None:
        """Start both servers; the replica follows the primary."""
        self.primary.start()
        self.replica.start()
        self._follow(self.replica)

    def stop(self) -> None:
        """Stop both servers."""
        for server in (self.primary, self.replica):
            if server.process is not None and server.process.poll() is None:
                server.kill()

    def promote(self) -> None:
        """Kill the primary and make the replica the primary, whatever it has missed."""
        self.primary.kill()
        self.primary, self.replica = self.replica, self.primary
        with self.primary.client() as client:
            client.execute_command("REPLICAOF", "NO", "ONE")

    def demote_old(self) -> None:
        """Start the killed server again, as the replica of the new primary."""
        self.replica.start()
        self._follow(self.replica)

    def in_sync(self) -> bool:
        """Return whether the replica has every write of the primary."""
        with suppress(redis.exceptions.RedisError), _impatient(self.replica) as client:
            facts = client.info("replication")
            with _impatient(self.primary) as primary:
                offset = primary.info("replication")["master_repl_offset"]
            return facts.get("master_link_status") == "up" and facts["slave_repl_offset"] >= offset
        return False

    def samples(self, at_s: float) -> list[Sample]:
        """Return every session as the primary has it; none while it does not answer."""
        with suppress(redis.exceptions.RedisError), _impatient(self.primary) as client:
            return [sample for key in session_keys(client) if (sample := _sample(client, key, at_s))]
        return []

    def _follow(self, server: RedisServer) -> None:
        with server.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", self.replication.port)


def session_keys(client: Redis) -> list[bytes]:
    """Return the keys of the sessions' hashes."""
    return [
        key for key in client.scan_iter(f"{_PREFIX}*", count=1000) if not key.endswith((b":end", b":ids"))
    ]


def session_of(key: bytes) -> str:
    """Return the session's id in the key of its hash."""
    return key.decode().partition("{")[2].partition("}")[0]


def _impatient(server: RedisServer) -> Redis:
    return Redis(port=server.port, socket_timeout=1.0, socket_connect_timeout=1.0)


def _sample(client: Redis, key: bytes, at_s: float) -> Sample | None:
    epoch, nonce, cursor = client.hmget(key, ".epoch", ".nonce", ".cursor")
    if epoch is None or cursor is None:
        return None
    # A checksum may stand before it: a version byte and 12 bytes.
    at = re.fullmatch(rb"(?:\x01.{12})?(-?\d+)\.(\d+)", cursor, re.DOTALL)
    if at is None or not epoch.isdigit():
        return None
    return Sample(at_s, session_of(key), int(epoch), nonce.hex(), int(at[1]), int(at[2]))


class Cluster:
    """The running deployment, its links, and which of its processes a fault has stopped."""

    def __init__(self, folder: Path, history: History) -> None:
        self.folder, self.history, self.started = folder, history, time.monotonic()
        self.store = Store(folder)
        # One per worker, and one that the gateways share.
        self.store_links = [Link(self.store.primary.port) for _ in range(WORKERS)]
        self.gateways_store_link = Link(self.store.primary.port)
        ports = free_ports(WORKERS + 2 * GATEWAYS)
        self.worker_ports, http, grpc = (
            ports[:WORKERS],
            ports[WORKERS : WORKERS + GATEWAYS],
            ports[-GATEWAYS:],
        )
        # By gateway, then by worker.
        self.worker_links = [[Link(port) for port in self.worker_ports] for _ in range(GATEWAYS)]
        self.client_links = {"http": Link(*http), "grpc": Link(*grpc)}
        self._http_ports, self._grpc_ports = http, grpc
        self.workers: list[Process] = []
        self.gateways: list[Process] = []
        # Processes that a fault has stopped, and that are not missed.
        self.stopped: set[Process] = set()
        # Faults that were begun.
        self.injecting: list[asyncio.Task[Fault]] = []

    def now_s(self) -> float:
        """Return the seconds since the piece began."""
        return time.monotonic() - self.started

    def address(self, way: str) -> str:
        """Return the address that clients use, over "http" or "grpc"."""
        return f"{way}://127.0.0.1:{self.client_links[way].port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Cluster"]:
        """Start everything, and kill everything at the end."""
        async with AsyncExitStack() as stack:
            for link in self.links():
                await stack.enter_async_context(link)
            stack.callback(self._stop)
            await asyncio.to_thread(self.store.start)
            self.workers = [self._worker(index) for index in range(WORKERS)]
            self.gateways = [self._gateway(index) for index in range(GATEWAYS)]
            self.restart()
            await self.ready()
            yield self

    def links(self) -> list[Link]:
        """Return every link."""
        of_workers = [link for links in self.worker_links for link in links]
        of_store = [*self.store_links, self.gateways_store_link, self.store.replication]
        return [*of_workers, *of_store, *self.client_links.values()]

    def restart(self) -> None:
        """Start every process that does not run."""
        for process in (*self.workers, *self.gateways):
            process.start()
        self.stopped.clear()

    async def ready(self) -> None:
        """Return when every gateway sees every worker ready, and the replica has every write."""
        until = time.monotonic() + _READY_S
        while not await self._is_ready():
            if time.monotonic() > until:
                raise TimeoutError(f"the deployment did not become ready: see the logs in {self.folder}")
            await asyncio.sleep(0.3)

    def point_at_primary(self) -> None:
        """Lead every link to the primary, as a service address that follows a failover does."""
        for link in (*self.store_links, self.gateways_store_link):
            link.point_at(self.store.primary.port)

    def notice_crashes(self) -> None:
        """Record every process that has ended although no fault stopped it, and start it again."""
        for process in (*self.workers, *self.gateways):
            if not process.runs and process not in self.stopped:
                self.history.add(Crash(self.now_s(), process.log.stem, f"it ended with {process.ended()}"))
                process.start()

    def notice_tracebacks(self) -> None:
        """Record every log that holds a traceback."""
        for log in sorted(self.folder.glob("*-?.log")):
            text = log.read_text("utf-8", "replace")
            if "Traceback" in text:
                last = text.partition("Traceback")[2].splitlines()
                raised = next((line for line in last[1:] if line and not line.startswith((" ", "|"))), "")
                self.history.add(Crash(self.now_s(), log.stem, f"it logged a traceback: {raised[:200]}"))

    async def _is_ready(self) -> bool:
        async with httpx.AsyncClient(timeout=2.0) as client:
            for port in self._http_ports:
                try:
                    body = (await client.get(f"http://127.0.0.1:{port}/readyz")).json()
                except (httpx.TransportError, ValueError):
                    return False
                if body["variants"][DEMO.name]["workers_ready"] < WORKERS:
                    return False
        return await asyncio.to_thread(self.store.in_sync)

    def _stop(self) -> None:
        for process in (*self.gateways, *self.workers):
            process.kill()
        self.store.stop()

    def _worker(self, index: int) -> Process:
        settings = {
            "redis_url": f"redis://127.0.0.1:{self.store_links[index].port}/0",
            "batching": "fixed",
            "precision": "f32",
            "session_ttl_s": _SESSION_TTL_S,
        }
        address = f"127.0.0.1:{self.worker_ports[index]}"
        options = ("worker", DEMO.name, "--store", str(DEMO.parent), "--threads", "1", "--listen", address)
        return Process(self.folder / f"worker-{index}.log", _environment(settings), *options)

    def _gateway(self, index: int) -> Process:
        addresses = [f"127.0.0.1:{link.port}" for link in self.worker_links[index]]
        settings = {
            "redis_url": f"redis://127.0.0.1:{self.gateways_store_link.port}/0",
            "workers": json.dumps({DEMO.name: addresses}),
        }
        ports = (self._http_ports[index], self._grpc_ports[index])
        options = ("gateway", "--http-port", str(ports[0]), "--grpc-port", str(ports[1]))
        return Process(self.folder / f"gateway-{index}.log", _environment(settings), *options)


def _environment(settings: dict[str, object]) -> dict[str, str]:
    return {f"EFFICIENTSAM3_{name.upper()}": str(value) for name, value in settings.items()}


async def until(done: Callable[[], bool], patience_s: float) -> bool:
    """Return whether it became true in time; it is looked at in a thread."""
    end = time.monotonic() + patience_s
    while not await asyncio.to_thread(done):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.1)
    return True
