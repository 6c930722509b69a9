"""Measures overload: what the service still answers at several times the rate that it can sustain."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from service import processes
from service.bench_bare import Work, requests, shown
from service.bench_clients import Answers, closed, opened, percentile_ms
from service.bench_load import keep, resident_mb
from service.errors import Kind
from service.processes import Served
from service.worker.cores import on_cores

_DEADLINE_S = 60.0
_REFUSED = {Kind.OVERLOADED.value, "ok"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How overload is measured."""

    # The core of the load generator, and that of gateway and worker together.
    generator_core: int
    service_core: int
    # Concurrent clients that find the sustainable rate, in so many runs of so many seconds.
    clients: int
    runs: int
    seconds: float
    # Requests that are then sent, as a multiple of that rate, and for how many seconds.
    factor: float
    overload_s: float


@dataclass(frozen=True, slots=True)
class Overload:
    """What became of more requests than can be answered."""

    # Requests answered per second before, with as many clients as the service can take.
    sustainable_per_s: float
    answers: Answers

    @property
    def goodput(self) -> float:
        """Answered requests per second, as a share of the sustainable rate."""
        return self.answers.per_s / self.sustainable_per_s

    def faults(self, least_goodput: float) -> list[str]:
        """What is not as it should be, a sentence each."""
        answers, found = self.answers, []
        if self.goodput < least_goodput:
            found.append(f"goodput is {self.goodput:.2f}; at least {least_goodput:g} is expected.")
        if unexpected := {kind: n for kind, n in answers.kinds.items() if kind not in _REFUSED}:
            found.append(f"requests ended otherwise than answered or overloaded: {unexpected}.")
        if answers.told_when != len(answers.refused_seconds):
            found.append(f"{len(answers.refused_seconds) - answers.told_when} refusals had no Retry-After.")
        return found


def run(work: Work, plan: Plan, say: Callable[[str], None]) -> Overload:
    """Measure, and say what was found as it is found. Raises CommandError and ServiceError."""
    same = {"threads": 1, "engine_cores": [plan.service_core], "image_ttl_s": 86_400}
    with (
        processes.service(work.folder, [plan.service_core], **same) as served,
        on_cores([plan.generator_core]),
    ):
        return asyncio.run(_measured(served, work, plan, say))


async def _measured(served: Served, work: Work, plan: Plan, say: Callable[[str], None]) -> Overload:
    asked = requests(work.kind, work.picture, work.text)
    await keep(served.grpc, work.picture)
    # Once for the engine to prepare for the shapes.
    await closed(served.grpc, asked, plan.clients, plan.seconds, _DEADLINE_S)
    begin_s = _busy_s(served)
    runs = [
        await closed(served.grpc, asked, plan.clients, plan.seconds, _DEADLINE_S) for _ in range(plan.runs)
    ]
    alone_ms = 1e3 * (_busy_s(served) - begin_s) / max(1, sum(len(each.seconds) for each in runs))
    sustainable = median(each.per_s for each in runs)
    say(
        f"sustainable: {shown(sustainable)} requests/s with {plan.clients} clients, generator on core "
        f"{plan.generator_core}, gateway and worker on core {plan.service_core}, {alone_ms:.2f} ms of it each"
    )
    before_mb, before_s = resident_mb(served), processes.busy_seconds(served)
    answers = await opened(served.grpc, asked, plan.factor * sustainable, plan.overload_s, _DEADLINE_S)
    found = Overload(sustainable, answers)
    refused = len(answers.refused_seconds)
    say(
        f"{plan.factor:g} times as many for {plan.overload_s:g} s: goodput {found.goodput:.2f} "
        f"({shown(answers.per_s)} answered/s), p50 {percentile_ms(answers.seconds, 50):.0f} ms, "
        f"p99 {percentile_ms(answers.seconds, 99):.0f} ms; by kind: {dict(answers.kinds)}"
    )
    share = answers.told_when / refused if refused else 1.0
    say(
        f"  {refused} overloaded, {share:.0%} with Retry-After, p50 "
        f"{percentile_ms(answers.refused_seconds, 50):.0f} ms, p99 "
        f"{percentile_ms(answers.refused_seconds, 99):.0f} ms"
    )
    busy = {name: seconds - before_s[name] for name, seconds in processes.busy_seconds(served).items()}
    used = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in busy.items())
    over_ms = 1e3 * sum(busy.values()) / max(1, len(answers.seconds))
    # Unlike goodput it does not depend on what else runs on the machine.
    say(
        f"  {over_ms:.2f} ms of processor time for each answer, refusals included: "
        f"{alone_ms / over_ms:.2f} of before"
    )
    say(f"  processor time: {used}; resident, MB: {before_mb:.0f} before, {resident_mb(served):.0f} after")
    return found


def _busy_s(served: Served) -> float:
    return sum(processes.busy_seconds(served).values())
