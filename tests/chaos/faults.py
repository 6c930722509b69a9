"""The faults, one function each: it disturbs the deployment, waits, and repairs what it disturbed."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.chaos.cluster import Cluster, session_keys, session_of, until
from tests.chaos.history import Fault
from tests.chaos.links import Link
from tests.deployment import Process

Injection = Callable[[Cluster, random.Random], Awaitable[Fault]]

# Flips a byte of one part of a session, in one step so that no part that was dropped comes back.
_FLIP = """
local part = redis.call('HGET', KEYS[1], ARGV[1])
if not part or #part == 0 then return 0 end
local at = 1 + ARGV[2] % #part
local byte = string.char(bit.bxor(string.byte(part, at), ARGV[3]))
redis.call('HSET', KEYS[1], ARGV[1], string.sub(part, 1, at - 1) .. byte .. string.sub(part, at + 1))
return 1
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. Two of one group never happen at once; `weight` is how often it is drawn."""

    name: str
    group: str
    inject: Injection
    weight: float = 1.0


async def _kill(cluster: Cluster, name: str, processes: list[Process], pause_s: float) -> Fault:
    started_s = cluster.now_s()
    cluster.stopped.update(processes)
    for process in processes:
        await asyncio.to_thread(process.kill)
    await asyncio.sleep(pause_s)
    for process in processes:
        process.start()
        cluster.stopped.discard(process)
    return Fault(name, " ".join(each.log.stem for each in processes), started_s, cluster.now_s())


async def _freeze(cluster: Cluster, name: str, process: Process, pause_s: float) -> Fault:
    started_s = cluster.now_s()
    # Another fault may have killed it.
    with suppress(psutil.NoSuchProcess):
        process.freeze()
    try:
        await asyncio.sleep(pause_s)
    finally:
        with suppress(psutil.NoSuchProcess):
            process.wake()
    return Fault(name, process.log.stem, started_s, cluster.now_s())


async def _block(cluster: Cluster, name: str, link: Link, pause_s: float, *, cut: bool) -> Fault:
    started_s = cluster.now_s()
    link.block()
    try:
        await asyncio.sleep(pause_s)
    finally:
        link.unblock()
    if cut:
        link.cut()
    return Fault(name, "cut" if cut else "held", started_s, cluster.now_s())


async def _kill_worker(cluster: Cluster, rng: random.Random) -> Fault:
    return await _kill(cluster, "worker killed", [rng.choice(cluster.workers)], rng.uniform(0, 3))


async def _kill_workers(cluster: Cluster, rng: random.Random) -> Fault:
    return await _kill(cluster, "all workers killed", cluster.workers, rng.uniform(0, 1))


async def _freeze_worker(cluster: Cluster, rng: random.Random) -> Fault:
    return await _freeze(cluster, "worker frozen", rng.choice(cluster.workers), rng.uniform(1, 14))


async def _kill_gateway(cluster: Cluster, rng: random.Random) -> Fault:
    return await _kill(cluster, "gateway killed", [rng.choice(cluster.gateways)], rng.uniform(0, 3))


async def _freeze_gateway(cluster: Cluster, rng: random.Random) -> Fault:
    return await _freeze(cluster, "gateway frozen", rng.choice(cluster.gateways), rng.uniform(1, 6))


async def _part_gateway_worker(cluster: Cluster, rng: random.Random) -> Fault:
    link = rng.choice([link for links in cluster.worker_links for link in links])
    name = "partition gateway-worker"
    return await _block(cluster, name, link, rng.uniform(1, 12), cut=rng.random() < 0.5)


async def _part_worker_store(cluster: Cluster, rng: random.Random) -> Fault:
    link = rng.choice(cluster.store_links)
    name = "partition worker-Redis"
    return await _block(cluster, name, link, rng.uniform(1, 12), cut=rng.random() < 0.5)


async def _part_client_gateway(cluster: Cluster, rng: random.Random) -> Fault:
    link = rng.choice(list(cluster.client_links.values()))
    name = "partition client-gateway"
    return await _block(cluster, name, link, rng.uniform(0, 6), cut=rng.random() < 0.7)


async def _kill_store(cluster: Cluster, rng: random.Random) -> Fault:
    started_s, server = cluster.now_s(), cluster.store.primary
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(rng.uniform(0, 4))
    await asyncio.to_thread(server.start)
    return Fault("Redis killed", "appendfsync always", started_s, cluster.now_s())


async def _freeze_store(cluster: Cluster, rng: random.Random) -> Fault:
    started_s = cluster.now_s()
    with cluster.store.primary.frozen():
        await asyncio.sleep(rng.uniform(1, 9))
    return Fault("Redis frozen", "", started_s, cluster.now_s())


async def _slow_store(cluster: Cluster, rng: random.Random) -> Fault:
    started_s, delay_s = cluster.now_s(), rng.choice([0.05, 0.3, 1.5])
    for link in cluster.store_links:
        link.slow_down(delay_s)
    try:
        await asyncio.sleep(rng.uniform(3, 8))
    finally:
        for link in cluster.store_links:
            link.slow_down(0.0)
    return Fault("Redis slow", f"{delay_s:g} s", started_s, cluster.now_s())


async def _full_store(cluster: Cluster, rng: random.Random) -> Fault:
    started_s, server = cluster.now_s(), cluster.store.primary
    with server.client() as client:
        client.config_set("maxmemory", 1)
        try:
            await asyncio.sleep(rng.uniform(2, 8))
        finally:
            client.config_set("maxmemory", 0)
    return Fault("Redis full", "maxmemory, noeviction", started_s, cluster.now_s())


async def _read_only_store(cluster: Cluster, rng: random.Random) -> Fault:
    """The workers are led to the replica, which has every write and takes none."""
    started_s = cluster.now_s()
    if not await until(cluster.store.in_sync, 20.0):
        return Fault("Redis read-only", "skipped: the replica lags", started_s, cluster.now_s())
    for link in cluster.store_links:
        link.point_at(cluster.store.replica.port)
    try:
        await asyncio.sleep(rng.uniform(2, 8))
    finally:
        cluster.point_at_primary()
    return Fault("Redis read-only", "", started_s, cluster.now_s())


async def _flush_store(cluster: Cluster, rng: random.Random) -> Fault:
    started_s = cluster.now_s()
    with cluster.store.primary.client() as client:
        client.flushall()
    return Fault("Redis flushed", "", started_s, cluster.now_s(), -1.0, cluster.now_s())


async def _promote_stale(cluster: Cluster, rng: random.Random) -> Fault:
    """The replica stops following; later the primary dies and the replica takes its place."""
    started_s, store = cluster.now_s(), cluster.store
    if not await until(store.in_sync, 20.0):
        return Fault("stale replica promoted", "skipped: the replica lags", started_s, cluster.now_s())
    since_s = cluster.now_s()
    store.replication.block()
    await asyncio.sleep(rng.uniform(2, 10))
    if rng.random() < 0.5:
        # Those that had the lost writes at hand are gone as well.
        await _kill(cluster, "", cluster.workers, 0.0)
    await asyncio.to_thread(store.promote)
    store.replication.point_at(store.primary.port)
    store.replication.unblock()
    cluster.point_at_primary()
    lost_s = cluster.now_s()
    await asyncio.to_thread(store.demote_old)
    return Fault("stale replica promoted", "", started_s, lost_s, since_s, lost_s)


async def _flip_byte(cluster: Cluster, rng: random.Random) -> Fault:
    """A byte of one session is another one, and its next frame reads the session from the store."""
    started_s, target, session = cluster.now_s(), "skipped: no session", ""
    with cluster.store.primary.client() as client:
        if keys := sorted(session_keys(client)):
            key = rng.choice(keys)
            parts = sorted(part for part in client.hkeys(key) if not part.startswith(b"."))
            part = rng.choice(parts)
            if client.eval(_FLIP, 1, key, part, rng.randrange(1 << 20), rng.randrange(1, 256)):
                session, target = session_of(key), part.decode().partition(":")[0]
                # As if a third worker had claimed it since: whoever has it at hand loads it again.
                client.hincrby(key, ".epoch", 1)
                client.hset(key, ".nonce", "corrupted")
    lost = started_s if session else None
    return Fault("byte of a session flipped", target, started_s, cluster.now_s(), lost, started_s, session)


KINDS = [
    Kind("kill-worker", "worker", _kill_worker, 3.0),
    Kind("kill-workers", "worker", _kill_workers),
    Kind("freeze-worker", "worker", _freeze_worker, 3.0),
    Kind("kill-gateway", "gateway", _kill_gateway, 2.0),
    Kind("freeze-gateway", "gateway", _freeze_gateway, 2.0),
    Kind("part-gateway-worker", "route", _part_gateway_worker, 2.0),
    Kind("part-worker-redis", "route", _part_worker_store, 2.0),
    Kind("part-client-gateway", "client", _part_client_gateway, 3.0),
    Kind("kill-redis", "redis", _kill_store, 2.0),
    Kind("freeze-redis", "redis", _freeze_store, 2.0),
    Kind("slow-redis", "redis", _slow_store),
    Kind("full-redis", "redis", _full_store, 2.0),
    Kind("read-only-redis", "redis", _read_only_store, 2.0),
    Kind("flush-redis", "redis", _flush_store, 0.7),
    Kind("stale-replica", "redis", _promote_stale, 1.3),
    Kind("flip-byte", "redis", _flip_byte, 1.3),
]


def drawn(kinds: list[Kind], rng: random.Random, most: int = 3) -> list[Kind]:
    """Return one to `most` kinds that may happen at once."""
    chosen: list[Kind] = []
    for _ in range(rng.choices(range(1, most + 1), weights=range(most, 0, -1))[0]):
        free = [kind for kind in kinds if kind.group not in {each.group for each in chosen}]
        if free:
            chosen.append(rng.choices(free, weights=[kind.weight for kind in free])[0])
    return chosen
