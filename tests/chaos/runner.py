"""Runs one piece of chaos: a deployment, clients, faults from a seed, and the verdict."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from service.client import AsyncClient, Client
from tests.chaos.bare import BareDriver
from tests.chaos.checker import Violation, check, summed
from tests.chaos.clients import PATIENCE_S, TIMEOUT_S, AsyncDriver, Driver, Follower, Recorder, SyncDriver
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Kind, drawn
from tests.chaos.history import Fault, History
from tests.chaos.plans import plans, undisturbed

# How long clients may take to finish their sessions once every fault is over.
_GRACE_S = 180.0
_SAMPLE_INTERVAL_S = 0.5
# How long the next faults wait for the deployment to be whole again.
_RECOVERY_S = 20.0

# Called about once a second with the seconds since faults began, and the history so far.
Progress = Callable[[float, History], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a piece does."""

    seconds: float
    seed: int
    folder: Path
    kinds: Sequence[Kind]
    # Pause of up to this much between two frames of a client, and between two rounds of faults.
    think_s: float = 0.4
    pause_s: float = 2.0
    # Of the bare client's frames: those that have a rival.
    rivals: float = 0.3


@dataclass(slots=True)
class Piece:
    """What came of a piece."""

    options: Options
    history: History
    violations: list[Violation] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, int]:
        """Number of faults by name; those that could not be injected are left out."""
        done = [each for each in self.history.faults if not each.target.startswith("skipped")]
        return dict(Counter(each.name for each in done))

    @property
    def figures(self) -> dict[str, int]:
        """The figures that are added up over pieces."""
        return summed(self.history, self.violations)


async def run(options: Options, progress: Progress) -> Piece:
    """Return what came of a piece."""
    options.folder.mkdir(parents=True)
    with (options.folder / "history.jsonl").open("w", encoding="utf-8") as file:
        history = History(file=file)
        async with Cluster(options.folder, history).running() as cluster:
            expected = await undisturbed(cluster.address("grpc"), plans())
            await _disturb(cluster, options, progress)
            cluster.notice_tracebacks()
        piece = Piece(options, history)
        piece.violations = check(history, expected)
    return piece


async def _disturb(cluster: Cluster, options: Options, progress: Progress) -> None:
    stop, over = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        followers = [
            asyncio.create_task(follower.follow(stop, options.think_s))
            for follower in await _followers(cluster, options, stack)
        ]
        watching = asyncio.create_task(_watch(cluster, over, progress))
        try:
            async with asyncio.timeout(options.seconds):
                await _inject(cluster, options)
        except TimeoutError:
            pass
        await _repair(cluster)
        stop.set()
        await asyncio.wait(followers, timeout=_GRACE_S)
        over.set()
        await watching
        for follower in followers:
            if follower.done():
                follower.result()
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)


async def _followers(cluster: Cluster, options: Options, stack: AsyncExitStack) -> list[Follower]:
    http, grpc = cluster.address("http"), cluster.address("grpc")
    patience = {"timeout_s": TIMEOUT_S, "patience_s": PATIENCE_S}
    names = ("http-async", "http-stream", "grpc-stream", "grpc-sync", "grpc-bare")
    recorders = {name: Recorder(name, cluster.history, cluster.now_s) for name in names}
    workers = [f"127.0.0.1:{port}" for port in cluster.worker_ports]
    bare = BareDriver(grpc.partition("://")[2], workers, recorders["grpc-bare"], options.seed, options.rivals)
    drivers: dict[str, Driver] = {
        "http-async": AsyncDriver(
            await stack.enter_async_context(AsyncClient(http, **patience)), streams=False
        ),
        "http-stream": AsyncDriver(
            await stack.enter_async_context(AsyncClient(http, **patience)), streams=True
        ),
        "grpc-stream": AsyncDriver(
            await stack.enter_async_context(AsyncClient(grpc, **patience)), streams=True
        ),
        "grpc-sync": SyncDriver(stack.enter_context(Client(grpc, **patience))),
        "grpc-bare": await stack.enter_async_context(bare),
    }
    choices = list(plans().values())
    return [
        Follower(drivers[name], recorders[name], choices, options.seed + index)
        for index, name in enumerate(names)
    ]


async def _inject(cluster: Cluster, options: Options) -> None:
    """Inject faults, one to three at once, until it is canceled."""
    rng = random.Random(options.seed)
    while True:
        kinds = drawn(list(options.kinds), rng)
        # Each has a generator of its own, so that the order of their steps does not change the next round.
        seeds = [rng.randrange(1 << 30) for _ in kinds]
        async with asyncio.TaskGroup() as together:
            for kind, seed in zip(kinds, seeds, strict=True):
                together.create_task(_one(cluster, kind, random.Random(seed)))
        try:
            async with asyncio.timeout(_RECOVERY_S):
                await cluster.ready()
        except TimeoutError:
            pass
        await asyncio.sleep(rng.uniform(0.3, options.pause_s))


async def _one(cluster: Cluster, kind: Kind, rng: random.Random) -> None:
    await asyncio.sleep(rng.uniform(0, 2))
    # A fault that has begun is carried out to its end, which repairs the deployment.
    cluster.history.add(await asyncio.shield(_remembered(cluster, kind, rng)))


def _remembered(cluster: Cluster, kind: Kind, rng: random.Random) -> "asyncio.Task[Fault]":
    task = asyncio.ensure_future(kind.inject(cluster, rng))
    cluster.injecting.append(task)
    return task


async def _repair(cluster: Cluster) -> None:
    """Wait for the faults that still last, and start what does not run."""
    for task in list(cluster.injecting):
        fault = await task
        if fault not in cluster.history.records:
            cluster.history.add(fault)
    cluster.restart()
    await cluster.ready()


async def _watch(cluster: Cluster, over: asyncio.Event, progress: Progress) -> None:
    """Sample the store, and notice processes that end by themselves."""
    begun_s = cluster.now_s()
    while not over.is_set():
        cluster.notice_crashes()
        for sample in await asyncio.to_thread(cluster.store.samples, cluster.now_s()):
            cluster.history.add(sample)
        progress(cluster.now_s() - begun_s, cluster.history)
        await asyncio.sleep(_SAMPLE_INTERVAL_S)
