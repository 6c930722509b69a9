"""One fuzzing process: hypothesis draws cases of the table's rows, and shrinks those that break a rule."""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from tests.fuzz.case import Case
from tests.fuzz.entries import ENTRIES, Entry
from tests.fuzz.live import Live
from tests.fuzz.oracle import Finding
from tests.fuzz.senders import HangError, Sender

# Cases of one row in a row: each such round has a seed of its own.
EXAMPLES = 50
# A process' rounds count up from its base; bases are this far from each other.
APART = 1_000_000
_SHRINK_S = 15.0
_READY_S = 60.0
# How long the parent takes, at most, to see that a process is another.
_NOTICE_S = 1.5
_REPORT_S = 0.3
_MAYBE_CRASHED = ("unavailable", "hang", "deadline", "status")


@dataclass(frozen=True, slots=True)
class Found:
    """A case that broke a rule, and the seed of the round that drew it."""

    case: Case
    finding: Finding
    seed: int = 0
    # What the log says of it.
    log: str = ""
    request_id: str = ""

    @property
    def signature(self) -> str:
        return f"{self.case.entry} {self.finding.signature}"


@dataclass(slots=True)
class Plan:
    """What one process does."""

    ports: tuple[int, int]
    key: str
    seed: int
    until: float
    hang_s: float
    only: Sequence[str] = ()


class _BrokenError(Exception):
    """The case broke a rule: hypothesis looks for a smaller one."""


class _Enough(BaseException):
    """The time is up; hypothesis lets it through."""


@dataclass(slots=True)
class Hunter:
    """Tries cases, and keeps the smallest that breaks each rule."""

    live: Live
    until: float
    # Deaths of processes so far, which the parent counts.
    deaths: Callable[[], int]
    known: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    report: Callable[[], None] = lambda: None

    def round(self, entry: Entry, seed: int) -> Found | None:
        """Draw cases of the row; the smallest that broke a rule which is not known yet."""
        best: list[Found] = []
        first_s: list[float] = []

        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
            print_blob=False,
        )
        @hypothesis.seed(seed)
        @given(entry.cases)
        def attempt(case: Case) -> None:
            now = time.monotonic()
            if now > self.until or (first_s and now - first_s[0] > _SHRINK_S):
                raise _Enough
            found = self.check(case, seed)
            if found is None or (
                found.signature in self.known if not best else found.signature != best[0].signature
            ):
                return
            if not best:
                first_s.append(now)
            if not best or case.size < best[0].case.size:
                best[:] = [found]
            raise _BrokenError

        # Hypothesis says that a case is flaky where the service was another by the second time.
        with suppress(_BrokenError, _Enough, hypothesis.errors.HypothesisException, ExceptionGroup):
            attempt()
        if best:
            self.known.add(best[0].signature)
        return best[0] if best else None

    def check(self, case: Case, seed: int = 0) -> Found | None:
        """Try one case; the rule that it broke."""
        before = self.deaths()
        outcome, finding = self.live.try_case(case)
        self.counts[case.entry] += 1
        self.report()
        if finding is None:
            return None
        if finding.rule in _MAYBE_CRASHED:
            time.sleep(_NOTICE_S)
            if self.deaths() != before:
                finding = Finding("crash", "a process of the service ended")
            self.wait_ready()
        return Found(case, finding, seed, request_id=outcome.request_id if outcome else "")

    def wait_ready(self) -> None:
        """Return once the variant is served again, or after a minute."""
        until = time.monotonic() + _READY_S
        while time.monotonic() < until:
            with suppress(HangError, OSError):
                if self.live.sender.http(Case("http.operations", "GET /readyz?variant=demo")).status == 200:
                    return
            time.sleep(0.2)


def run(plan: Plan, deaths: "Synchronized[int]", found: "Queue[Any]") -> None:
    """Be a fuzzing process until the plan's time is up. Puts counts, and what it found, into the queue."""
    sender = Sender(*plan.ports, plan.key, plan.hang_s)
    hunter = Hunter(Live(sender), plan.until, lambda: int(deaths.value))
    reported = [0.0]

    def report(always: bool = False) -> None:
        now = time.monotonic()
        if always or now - reported[0] > _REPORT_S:
            found.put(hunter.counts)
            hunter.counts, reported[0] = Counter(), now

    hunter.report = report
    rows = [ENTRIES[name] for name in plan.only] or list(ENTRIES.values())
    seed = plan.seed
    while time.monotonic() < plan.until:
        (row,) = random.Random(seed).choices(rows, [row.weight for row in rows])
        if one := hunter.round(row, seed):
            found.put(one)
        seed += 1
    report(always=True)
    sender.close()
