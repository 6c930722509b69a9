"""`make hostile`: clicks of a well-behaved client beside 100 hostile clients of each kind.

The service has all cores but the first. The hostile clients and the client that clicks share the first core.
The hostile ones run there only when nothing else does (nice 19): a click that is late waited for the service,
not for them. On two cores the service has one.

Each kind meets a service of its own, so that what one leaves behind is not blamed on the next.
The exit code is 1 if a click failed, or if a kind's 99th percentile reached a second.
"""

import argparse
import asyncio
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from service import processes
from service.processes import Served
from tests.fuzz import bombs
from tests.keys import KeysFile, authorization, secret
from tests.load.hostile import attacks
from tests.load.hostile.attacks import ATTACKS, Siege
from tests.pictures import encoded, street
from tests.place import DEMO

_MAX_P99_S = 1.0
_CLICK_TIMEOUT_S = 10.0
_RAMP_S = 2.0
_BASELINE = "no hostile clients"
_CLICKER, _HOSTILE = "alice", "mallory"


@dataclass(slots=True)
class Clicks:
    """What became of the clicks beside one kind of hostile clients."""

    seconds: list[float] = field(default_factory=list)
    # Of the failed: the status, or the kind of failure.
    failures: Counter[str] = field(default_factory=Counter)
    hostile: Counter[str] = field(default_factory=Counter)
    # Processes of the service that ended.
    deaths: int = 0

    def percentile(self, percent: float) -> float:
        """Of the answered, seconds, by the nearest rank; infinite if none was answered."""
        ordered = sorted(self.seconds)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.inf

    @property
    def passes(self) -> bool:
        """Whether the bound holds."""
        return self.percentile(99) < _MAX_P99_S and not self.failures and not self.deaths


async def _click(client: httpx.AsyncClient, body: bytes, due: float, clicks: Clicks) -> None:
    try:
        headers = {**authorization(_CLICKER), "Content-Type": bombs.MULTIPART[1]}
        answer = await client.post("/v1/segment", content=body, headers=headers)
    except httpx.HTTPError as error:
        clicks.failures[type(error).__name__] += 1
        return
    if answer.status_code == 200:
        clicks.seconds.append(time.perf_counter() - due)
    else:
        clicks.failures[str(answer.status_code)] += 1


async def _clicked(url: str, seconds: float, per_s: float, clicks: Clicks) -> None:
    """Clicks at fixed times, whether those before were answered or not; each counts from when it was due."""
    body = bombs.with_image(encoded(street(320, 240)), {"prompts": [{"points": [{"x": 90, "y": 140}]}]})
    async with httpx.AsyncClient(base_url=url, timeout=_CLICK_TIMEOUT_S) as client:
        started, asked = time.perf_counter(), list[asyncio.Task[None]]()
        for index in range(int(seconds * per_s)):
            due = started + index / per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(_click(client, body, due, clicks)))
        await asyncio.gather(*asked)


def _besiege(served: Served, kind: str, options: argparse.Namespace) -> Clicks:
    """Clicks beside hostile clients of one kind."""
    clicks, spawn = Clicks(), multiprocessing.get_context("spawn")
    outcomes, before = spawn.Queue(), served.workers
    http_port, grpc_port = (int(each.rpartition(":")[2]) for each in (served.url, served.grpc))
    attackers = None
    if kind != _BASELINE:
        until = time.monotonic() + _RAMP_S + options.seconds + 1
        siege = Siege(http_port, grpc_port, secret(_HOSTILE), until)
        arguments = (kind, siege, options.clients, options.core, outcomes)
        attackers = spawn.Process(target=attacks.run, args=arguments, daemon=True)
        attackers.start()
        time.sleep(_RAMP_S)
    asyncio.run(_clicked(served.url, options.seconds, options.per_s, clicks))
    if attackers:
        with suppress(Empty):
            clicks.hostile = outcomes.get(timeout=_CLICK_TIMEOUT_S)
        attackers.kill()
    clicks.deaths = len(set(before) - set(served.workers))
    # One that is still busy with what was sent to it would not hear SIGTERM for minutes.
    for process in (served.gateway, *served.workers):
        os.kill(process, signal.SIGKILL)
    return clicks


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.load.hostile", description=__doc__)
    parser.add_argument("kinds", nargs="*", help=f"Of {', '.join(ATTACKS)}; default: all.", metavar="KIND")
    parser.add_argument("--clients", type=int, default=100, help="Hostile clients at once.")
    parser.add_argument("--seconds", type=float, default=20.0, help="Time that each kind is measured for.")
    parser.add_argument("--per-s", type=float, default=10.0, help="Clicks per second.")
    parser.add_argument("--core", type=int, default=0, help="The clients' core; the service has the others.")
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(ATTACKS):
        parser.error(f"there is no kind {min(unknown)!r}: choose from {', '.join(ATTACKS)}")
    return options


def _table(measured: dict[str, Clicks]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column, side in (
        ("beside", "left"),
        ("clicks", "right"),
        ("p50 ms", "right"),
        ("p99 ms", "right"),
        ("failed", "right"),
        ("failures", "left"),
        ("what the hostile clients saw", "left"),
    ):
        table.add_column(column, justify="right" if side == "right" else "left")
    for kind, clicks in measured.items():
        failed, deaths = clicks.failures.total(), f", {clicks.deaths} workers died" if clicks.deaths else ""
        table.add_row(
            kind if clicks.passes else f"[red]{kind}[/]",
            str(len(clicks.seconds) + failed),
            *(f"{1e3 * clicks.percentile(percent):.0f}" for percent in (50, 99)),
            str(failed),
            _counted(clicks.failures) + deaths,
            _counted(clicks.hostile),
        )
    return table


def _line(kind: str, clicks: Clicks) -> str:
    times = ", ".join(f"p{percent} {1e3 * clicks.percentile(percent):.0f} ms" for percent in (50, 99))
    return f"{kind}: {times}, {clicks.failures.total()} failed"


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} x {count:,}" for name, count in counter.most_common(4))


def _measure(
    keys: Path, kinds: Sequence[str], options: argparse.Namespace, console: Console
) -> dict[str, Clicks]:
    """Clicks beside each kind, with a service of its own for each."""
    measured: dict[str, Clicks] = {}
    everywhere = os.sched_getaffinity(0)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(kinds))
        for kind in kinds:
            progress.update(task, description=kind)
            others = sorted(everywhere - {options.core})
            with processes.service(DEMO, others, keys_file=keys, log_level="ERROR", drain_s=1) as served:
                os.sched_setaffinity(0, {options.core})
                measured[kind] = _besiege(served, kind, options)
                os.sched_setaffinity(0, everywhere)
            console.print(_line(kind, measured[kind]), highlight=False)
            progress.advance(task)
    return measured


def main() -> int:
    """The exit code."""
    options, console = _arguments(), Console()
    kinds = [_BASELINE, *(options.kinds or ATTACKS)]
    with tempfile.TemporaryDirectory(prefix="efficientsam3-hostile-") as folder:
        keys = KeysFile(Path(folder) / "keys.toml", **{name: {} for name in (_CLICKER, _HOSTILE)})
        measured = _measure(keys.path, kinds, options, console)
    console.print(_table(measured))
    failed = [kind for kind, clicks in measured.items() if not clicks.passes]
    if failed:
        console.print(
            f"[red]A click failed, or the p99 reached {_MAX_P99_S:g} s, beside: {', '.join(failed)}.[/]"
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
