"""One run: valid seeds, the corpus, fuzzing in several processes, valid seeds again, memory."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tests.fuzz import case as cases
from tests.fuzz import hunt
from tests.fuzz.case import CORPUS, Case
from tests.fuzz.entries import ENTRIES
from tests.fuzz.hunt import Found, Hunter, Plan
from tests.fuzz.live import Live
from tests.fuzz.oracle import Finding
from tests.fuzz.senders import Sender
from tests.fuzz.target import Target, key

# The part of the time in which caches and pools fill; memory is compared with what is held after it.
_WARM_UP = 0.5
_GROWTH = 1.1
# The same of a run that is too short to fill every cache and pool before the first measurement.
_SHORT_S, _SHORT_GROWTH = 120, 1.25
_SETTLE_S = 60.0
_LOOK_S = 0.4


@dataclass(slots=True)
class Options:
    """What `make fuzz` was asked for."""

    seconds: float
    seed: int
    jobs: int
    hang_s: float
    only: Sequence[str] = ()


@dataclass(slots=True)
class Run:
    """One run against a service that is running."""

    target: Target
    options: Options
    console: Console
    found: dict[str, Found] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    fuzzed_s: float = 0.0
    # Counts deaths of the service's processes; fuzzing processes read it.
    deaths: Any = field(default_factory=lambda: multiprocessing.get_context("spawn").Value("i", 0))

    def whole(self) -> None:
        """Everything, in order."""
        corpus = sorted(CORPUS.glob("*.json"))
        self.accept_valid("at the start")
        self.replay(corpus)
        self.fuzz(_WARM_UP * self.options.seconds, "warming up", 0)
        before = self._settled(None)
        self.fuzz((1 - _WARM_UP) * self.options.seconds, "fuzzing", self.options.jobs)
        # The same load as before the first look: what a process keeps of one large request is no growth.
        self.replay(corpus)
        self.accept_valid("at the end")
        self._compare(before)
        self._look()

    def accept_valid(self, when: str) -> None:
        """Send every valid seed; each must be answered without an error."""
        hunter = self._hunter()
        for entry in self._rows():
            for case in entry.valid():
                outcome, finding = hunter.live.try_case(case)
                self.counts[case.entry] += 1
                if finding is None and outcome is not None and entry.way != "offline" and not outcome.good:
                    said = (
                        outcome.problems[0].detail
                        if outcome.problems
                        else outcome.body[:200].decode("latin-1")
                    )
                    finding = Finding("valid seed refused", f"{when}: {outcome.status} {said}")
                if finding:
                    self._keep(Found(case, finding, request_id=outcome.request_id if outcome else ""))
        hunter.live.sender.close()

    def replay(self, paths: Iterable[Path]) -> None:
        """Send every case of the corpus, alone."""
        hunter = self._hunter()
        for path in paths:
            case = cases.load(path)
            if self.options.only and case.entry not in self.options.only:
                continue
            found = hunter.check(case)
            self._look()
            if found:
                self.console.print(
                    f"[red]{path.name}[/]: {found.finding.rule}: {found.finding.detail[:160]}",
                    highlight=False,
                )
                self._keep(found)
        self.counts += hunter.counts
        hunter.live.sender.close()

    def fuzz(self, seconds: float, what: str, first: int) -> None:
        """Have so many processes draw cases meanwhile, and take what they find."""
        spawn = multiprocessing.get_context("spawn")
        queue = spawn.Queue()
        started = time.monotonic()
        processes = []
        for index in range(self.options.jobs):
            seed = self.options.seed + hunt.APART * (first + index)
            ports = (self.target.serving.http_port, self.target.serving.grpc_port)
            plan = Plan(ports, key(index), seed, started + seconds, self.options.hang_s, self.options.only)
            processes.append(spawn.Process(target=hunt.run, args=(plan, self.deaths, queue), daemon=True))
            processes[-1].start()
        with self._progress() as progress:
            task = progress.add_task(what, total=seconds, requests=0, rate=0, found=0)
            while any(process.is_alive() for process in processes) or not queue.empty():
                self._drain(queue)
                self._look()
                done, took = self.counts.total(), time.monotonic() - started
                progress.update(
                    task,
                    completed=min(seconds, took),
                    requests=done,
                    rate=round(done / (self.fuzzed_s + took)),
                    found=len(self.found),
                )
                # The rest of a request and of a shrink is waited for, and no more.
                if took > seconds + 2 * self.options.hang_s + 15:
                    self._add(Finding("hang", "a fuzzing process did not end"), Case("raw.http", "http"))
                    break
        self.fuzzed_s += time.monotonic() - started
        for process in processes:
            process.join(1)
            process.kill()

    def _drain(self, queue: Any) -> None:
        until = time.monotonic() + _LOOK_S
        with suppress(Empty):
            while (left := until - time.monotonic()) > 0:
                got = queue.get(timeout=left)
                if isinstance(got, Counter):
                    self.counts += got
                else:
                    self._keep(got)

    def _keep(self, found: Found) -> None:
        """Remember it, unless its like is known."""
        if found.signature not in self.found:
            self.found[found.signature] = replace(found, log=self.target.failure(found.request_id))

    def _add(self, finding: Finding, case: Case) -> None:
        self._keep(Found(case, finding))

    def _look(self) -> None:
        """Count a process that is not the one that it was."""
        lost = self.target.lost()
        if not lost:
            return
        self.deaths.value += 1
        self._add(Finding("crash", lost), Case("raw.http", "http"))
        if self.target.serving.process.poll() is not None:
            raise SystemExit(f"{lost}:\n{self.target.serving.log.read_text()[-3000:]}")
        hunter = self._hunter()
        hunter.wait_ready()
        hunter.live.sender.close()
        self.target.accept_pids()

    def _settled(self, before: dict[str, int] | None) -> dict[str, int]:
        """Resident bytes, once sessions and images of before have ended; at most for a minute."""
        until = time.monotonic() + (_SETTLE_S if before else 2.0)
        held = self.target.memory()
        while before and time.monotonic() < until and self._grown(before, held):
            time.sleep(1.0)
            held = self.target.memory()
        return held

    def _compare(self, before: dict[str, int]) -> None:
        after = self._settled(before)
        for name in before:
            self.console.print(
                f"{name}: {before[name] / 1e6:.0f} MB after warm-up, {after[name] / 1e6:.0f} MB at the end",
                highlight=False,
            )
        for name in self._grown(before, after):
            detail = f"{name} grew from {before[name]:,} to {after[name]:,} bytes"
            self._add(Finding("memory", detail), Case("raw.http", "http"))

    def _grown(self, before: dict[str, int], after: dict[str, int]) -> list[str]:
        limit = _SHORT_GROWTH if self.options.seconds < _SHORT_S else _GROWTH
        return [name for name in before if after[name] > limit * before[name]]

    def _hunter(self) -> Hunter:
        serving = self.target.serving
        sender = Sender(serving.http_port, serving.grpc_port, key(0), self.options.hang_s)

        def deaths() -> int:
            # Nobody else looks meanwhile.
            return int(self.deaths.value) + bool(self.target.lost())

        return Hunter(Live(sender), float("inf"), deaths)

    def _rows(self) -> list[Any]:
        return [row for row in ENTRIES.values() if not self.options.only or row.name in self.options.only]

    def _progress(self) -> Progress:
        columns = (
            "{task.description}",
            "{task.fields[requests]} requests",
            "{task.fields[rate]}/s",
            "{task.fields[found]} findings",
        )
        return Progress(*map(TextColumn, columns), BarColumn(), TimeRemainingColumn(), console=self.console)


def tell(run: Run, save: Callable[[Found], Path | None]) -> None:
    """Print what was found, by row, and the rate."""
    for found in run.found.values():
        path = save(found)
        run.console.print(f"[bold red]{found.signature}[/]", highlight=False)
        run.console.print(f"  {found.finding.detail[:400]}", markup=False, highlight=False)
        if found.log:
            run.console.print(f"  log: {found.log}", markup=False, highlight=False)
        if found.seed:
            run.console.print(
                f"  again: FUZZ_SEED={found.seed} FUZZ_ONLY={found.case.entry} make fuzz", highlight=False
            )
        if path:
            run.console.print(f"  input: {path}", highlight=False)
    total, rate = run.counts.total(), run.counts.total() / max(run.fuzzed_s, 1)
    run.console.print(
        f"{total:,} requests, {rate:.0f} per second while fuzzing, {len(run.found)} findings.",
        highlight=False,
    )
