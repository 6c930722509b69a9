"""What no answer may be, whatever was sent."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from service.errors import TABLE, Kind
from tests.fuzz.case import Case
from tests.fuzz.senders import Outcome, Problem

_KINDS = {str(kind) for kind in Kind}
# While fewer requests are in flight than there are slots, nothing is refused as too many, and nothing waits.
_HONEST_IF_ASKED = {str(Kind.DEADLINE_EXCEEDED)}
_UNAVAILABLE = {str(Kind.UNAVAILABLE), str(Kind.STORE_UNAVAILABLE), str(Kind.OVERLOADED)}

# Of the parser, which refuses what is no HTTP at all before our code sees it.
_NO_HTTP = (b"Invalid HTTP request received.", b"Failed to open a WebSocket connection")
_FILES = ("GET /page/", "GET / ", "GET /static-offline-docs/")

LEAKS = re.compile(
    r"""
      0x[0-9a-fA-F]{6,}                                   # a memory address
    | /(?:usr|home|tmp|work|root|opt|var|proc|etc|dev|sys|run|srv|mnt)/[\w.-]+   # a path
    | site-packages | \.venv\b | \b\w+\.py\b | \.so\b
    | Traceback | <class\ | <[\w.]+\ object\ at | line\ \d+,\ in
    | \b[A-Za-z_]*(?:Error|Exception|Warning)\b           # a class of ours or a library's
    | BytesIO | PIL\b | libav | FFmpeg\w+Error | pydantic | numpy | errno\b | Errno\b
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that an answer broke. `rule` and `detail` tell findings apart."""

    rule: str
    detail: str

    @property
    def signature(self) -> str:
        """The same for the same defect, as far as an answer shows it."""
        return f"{self.rule}: {re.sub(r'[0-9a-f]{8,}|[0-9]+', '#', self.detail)[:120]}"


def judge(case: Case, outcome: Outcome, *, deadlined: bool) -> Finding | None:
    """The first rule that the outcome breaks; None: it breaks none.

    deadlined: the case brought a deadline of its own, so that `deadline_exceeded` may be honest.
    """
    if isinstance(outcome.status, int) and outcome.status >= 500 and not outcome.problems:
        return Finding("status", f"{outcome.status} {outcome.body[:200].decode('latin-1')}")
    if case.refused and outcome.good:
        return Finding("accepted", f"{outcome.status} {outcome.body[:200].decode('latin-1')}")
    if outcome.status == 400 and outcome.body.startswith(_NO_HTTP):
        return None
    if case.entry.startswith("raw."):
        return _leak(case, outcome.body.decode("latin-1")[:2000]) if outcome.status == 400 else None
    if outcome.status in (400, 416) and f"{case.target} ".startswith(_FILES):
        # Refusals of ranges are the file server's; the page is no part of the API.
        return _leak(case, outcome.body.decode("latin-1")[:2000])
    for problem in outcome.problems:
        if found := _judge_problem(case, outcome, problem, deadlined):
            return found
    return None


def _judge_problem(case: Case, outcome: Outcome, problem: Problem, deadlined: bool) -> Finding | None:
    said = f"{problem.status} {problem.kind} {problem.detail}"
    if _is_of_grpc_itself(case, problem, deadlined):
        return _leak(case, problem.detail)
    if not problem.whole or problem.kind not in _KINDS:
        return Finding("no kind", said)
    if problem.kind == Kind.INTERNAL:
        return Finding("internal", said)
    if problem.kind in _UNAVAILABLE and not _says_readiness(case):
        return Finding("unavailable", said)
    if problem.kind in _HONEST_IF_ASKED and not deadlined:
        return Finding("deadline", said)
    if isinstance(outcome.status, int) and outcome.status >= 400 and outcome.status != 101:
        if outcome.media_type != "application/problem+json":
            return Finding("media type", f"{outcome.media_type}: {said}")
        if TABLE[Kind(problem.kind)].http_status != outcome.status:
            return Finding("status and kind differ", said)
    if not problem.detail.strip():
        return Finding("no detail", said)
    return _leak(case, problem.detail)


def _is_of_grpc_itself(case: Case, problem: Problem, deadlined: bool) -> bool:
    """Refusals that gRPC makes before, or beside, our code: they have no ErrorInfo."""
    if not case.entry.startswith("grpc."):
        return False
    ours = case.target.startswith("/efficientsam3.")
    if problem.status == "RESOURCE_EXHAUSTED":
        return "larger than max" in problem.detail or "metadata" in problem.detail
    if problem.status == "UNIMPLEMENTED":
        return not problem.kind
    if problem.status == "DEADLINE_EXCEEDED":
        return deadlined and not problem.kind
    if problem.status == "CANCELLED":
        return case.target.endswith("/Watch")
    return not ours and problem.status in ("NOT_FOUND", "INVALID_ARGUMENT")


def _says_readiness(case: Case) -> bool:
    return "/readyz" in case.target


def _leak(case: Case, text: str) -> Finding | None:
    """What an answer tells of us that the client did not send."""
    sent = case.sent().decode("latin-1")
    sent += unquote(sent)
    for match in LEAKS.finditer(text):
        if match[0] not in sent:
            return Finding("leak", f"{match[0]!r} in {text[:300]!r}")
    return None
