"""The service and its peers in one run: each in its turn, alone on the machine, asked the same."""

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from service.cli_common import CommandError
from service.worker.cores import on_cores
from tests.load.peers.agreement import first_difference
from tests.load.peers.clients import Answers, Asking, at_once, percentile_ms
from tests.load.peers.servers import FailedError, Running, Segments, Server, running

# (what is done, of which server) is told before each step.
Say = Callable[[str, str], None]

# Requests of each client that do not count, at least.
_WARMING = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of which artefact, and how it is measured."""

    artefact: Path
    # JPEG files and texts that all have to find the same on; the first is what the clients ask.
    asked: Sequence[tuple[bytes, str]]
    clients: Sequence[int]
    runs: int
    # Of each run, and so many requests of all runs together at least.
    seconds: float
    requests: int
    # Of the processor, for all but the engine.
    cores: Sequence[int]
    # The service's, for everyone.
    settings: Mapping[str, object]

    @property
    def least(self) -> int:
        """Requests of one run."""
        return math.ceil(self.requests / self.runs)


@dataclass(frozen=True, slots=True)
class Row:
    """What one server did with so many clients."""

    server: str
    clients: int
    # Answered requests per second, of each run.
    per_s: tuple[float, ...]
    # Of all runs together.
    p50_ms: float
    p99_ms: float
    requests: int
    # Of the processor, for a request: the median of the runs. All of the server, its engine included.
    cpu_ms: float
    failures: Mapping[str, int]


def steps(servers: int, plan: Plan) -> int:
    """How often `measure` tells what it does, with so many servers."""
    return servers * (plan.runs * (1 + len(plan.clients)) + 1)


def measure(servers: Mapping[Server, Path], plan: Plan, say: Say) -> list[Row]:
    """Every server in every run, in turn. `servers` come with their interpreters, ours first.

    Raises CommandError where a server does not start, or does not find what ours finds.
    """
    answers: dict[tuple[str, int], list[Answers]] = defaultdict(list)
    with on_cores(plan.cores):
        _compare(servers, plan, say)
        for server in _turns(list(servers), plan.runs):
            say("starting", server.name)
            asking = Asking(server, *plan.asked[0])
            with _running(server, servers[server], plan) as one:
                # From few to many: who adapts to what comes is not to remember more than comes.
                for clients in sorted(plan.clients):
                    say(f"{clients} clients", server.name)
                    # Also for the engine to prepare for the shapes.
                    asking.closed(one, clients, plan.seconds / 2, _WARMING * clients)
                    answers[server.name, clients].append(
                        asking.closed(one, clients, plan.seconds, plan.least)
                    )
    return [_row(name, clients, runs) for (name, clients), runs in answers.items()]


def _running(server: Server, python: Path, plan: Plan) -> AbstractContextManager[Running]:
    first = Asking(server, *plan.asked[0]).body()
    return running(server, python, plan.artefact, plan.cores, plan.settings, first)


def _turns(servers: Sequence[Server], runs: int) -> Iterator[Server]:
    """Each run begins with another server: what comes first in one comes last in the next."""
    for run, turn in itertools.product(range(runs), range(len(servers))):
        yield servers[(run + turn) % len(servers)]


def _compare(servers: Mapping[Server, Path], plan: Plan, say: Say) -> None:
    """Raise CommandError where a server finds anything else than the first one, alone or in a batch."""
    ours: list[Segments] = []
    for server, python in servers.items():
        say("comparing", server.name)
        askings = [Asking(server, *each) for each in plan.asked]
        with _running(server, python, plan) as one:
            try:
                alone = [segments for asking in askings for segments in at_once([asking], one)]
                together = at_once(askings, one)
            except FailedError as error:
                raise CommandError(f"{server.name} does not answer: {error}") from error
        ours = ours or alone
        for way, found in (("one by one", alone), ("at once", together)):
            if what := first_difference(found, ours):
                raise CommandError(f"{server.name}, asked {way}, does not find what ours finds: {what}")


def _row(name: str, clients: int, runs: Sequence[Answers]) -> Row:
    seconds = [each for run in runs for each in run.seconds]
    return Row(
        name,
        clients,
        tuple(run.per_s for run in runs),
        percentile_ms(seconds, 50),
        percentile_ms(seconds, 99),
        len(seconds),
        median(run.cpu_ms for run in runs),
        dict(sum((run.failures for run in runs), Counter())),
    )


def as_table(rows: Sequence[Row]) -> str:
    """In Markdown: a line per server and number of clients."""
    heads = (
        "",
        "clients",
        "requests/s",
        "its runs",
        "p50, ms",
        "p99, ms",
        "requests",
        "failed",
        "CPU, ms",
    )
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) - 1)}"]
    for row in sorted(rows, key=lambda each: each.clients):
        cells = (
            row.server,
            str(row.clients),
            f"{median(row.per_s):.1f}",
            f"{min(row.per_s):.1f}-{max(row.per_s):.1f}",
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            str(row.requests),
            str(sum(row.failures.values())),
            f"{row.cpu_ms:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(rows: Sequence[Row], facts: Mapping[str, Any]) -> str:
    """The same, with what was measured how."""
    fields = Row.__slots__
    shown = [{name: getattr(row, name) for name in fields} for row in rows]
    return json.dumps({**facts, "rows": shown}, indent=1)
