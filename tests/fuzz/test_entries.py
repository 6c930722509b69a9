"""The table of the fuzzer has a row for every entry point of the service, and its corpus can be read."""

import asyncio
import gc
import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from google.protobuf import descriptor_pool
from starlette.routing import Mount, Route, WebSocketRoute

from service.config import GatewaySettings
from service.gateway.server import Gateway
from service.pb.efficientsam3.v1 import variants_pb2
from service.rpc_server import SERVICES
from tests.fuzz import case as cases
from tests.fuzz.case import CORPUS, LIVE_IMAGE, LIVE_SESSION, Case
from tests.fuzz.entries import ENTRIES
from tests.fuzz.hunt import Hunter
from tests.fuzz.live import Live
from tests.fuzz.oracle import judge
from tests.fuzz.senders import Outcome, Problem, Sender

COVERED = {target for entry in ENTRIES.values() for target in entry.covers}


def _routes() -> list[str]:
    """Every route of the HTTP application that a gateway makes, as "METHOD /path"."""

    async def start() -> list[FastAPI]:
        settings = GatewaySettings(http_port=0, grpc_port=0, workers={"demo": ["unix:/nowhere"]}, drain_s=0)
        gateway = await Gateway.start(settings, lambda name: variants_pb2.Variant(name=name))
        # The gateway does not hand its application out; it is the one that this call made.
        made = [each for each in gc.get_objects() if issubclass(type(each), FastAPI) and each not in before]
        await gateway.stop(asyncio.Event())
        return made

    before = [each for each in gc.get_objects() if issubclass(type(each), FastAPI)]
    (app,) = asyncio.run(start())
    return [found for route in app.routes for found in _named(route)]


def _named(route: object) -> list[str]:
    if isinstance(route, WebSocketRoute):
        return [f"WS {route.path}"]
    if isinstance(route, Mount):
        return [f"GET {route.path}/"]
    assert isinstance(route, (Route, APIRoute))
    return [f"{method} {route.path}" for method in sorted(route.methods or {"GET"})]


def _is_covered(route: str) -> bool:
    for covered in COVERED:
        plain = covered.replace(LIVE_SESSION, "{id}").replace(LIVE_IMAGE, "{id}")
        if plain == route or (route.endswith("/") and route != "GET /" and plain.startswith(route)):
            return True
    return False


def test_every_route_has_a_row() -> None:
    routes = _routes()
    assert "POST /v1/segment" in routes and "WS /v1/sessions/{id}/stream" in routes
    # Whatever takes GET takes HEAD with the same code, unless it is a route of its own.
    ours = [route for route in routes if not (route.startswith("HEAD ") and f"GET {route[5:]}" in routes)]
    assert [route for route in ours if not _is_covered(route)] == []


def test_every_rpc_has_a_row() -> None:
    pool = descriptor_pool.Default()
    services = (*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
    rpcs = [f"/{name}/{method.name}" for name in services for method in pool.FindServiceByName(name).methods]
    assert "/efficientsam3.v1.Tracking/TrackVideo" in rpcs
    assert [rpc for rpc in rpcs if rpc not in COVERED] == []


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")), ids=lambda path: path.stem)
def test_every_file_of_the_corpus_is_a_case_of_a_row(path: Path) -> None:
    if "made" not in path.read_text():
        case = cases.load(path)
        assert case.entry in ENTRIES and case.messages
    assert path.stat().st_size < 20_000


def test_a_case_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    case = Case("session.stream", "/x", (("A", "b"),), ("text é", b"\xff\0", b'{"plain": 1}', "\0"))
    assert cases.load(cases.save(case, {"rule": "none"}, tmp_path)) == case


@pytest.mark.parametrize(
    ("outcome", "rule"),
    [
        (Outcome(500, b"", "application/problem+json", [Problem("internal", 500, "x")]), "internal"),
        (Outcome(503, b"", "application/problem+json", [Problem("unavailable", 503, "x")]), "unavailable"),
        (Outcome(429, b"", "application/problem+json", [Problem("overloaded", 429, "x")]), "unavailable"),
        (Outcome(504, b"", "application/problem+json", [Problem("deadline_exceeded", 504, "x")]), "deadline"),
        (Outcome(400, b"", "text/plain", [Problem("invalid_argument", 400, "x")]), "media type"),
        (
            Outcome(404, b"", "application/problem+json", [Problem("forbidden", 404, "x")]),
            "status and kind differ",
        ),
        (Outcome(400, b"", "application/problem+json", [Problem("odd", 400, "x")]), "no kind"),
        (Outcome(400, b"", "application/problem+json", [Problem("invalid_argument", 400, " ")]), "no detail"),
        *(
            (Outcome(400, b"", "application/problem+json", [Problem("invalid_argument", 400, leak)]), "leak")
            for leak in (
                "at 0x7f00deadbeef",
                "/tmp/x.sock",
                "a ValueError",
                "<class 'int'>",
                "in body.py",
                "PIL says",
            )
        ),
        (Outcome("UNKNOWN", problems=[Problem("", "UNKNOWN", "x")]), "no kind"),
        (Outcome(500, b"oops"), "status"),
    ],
)
def test_an_answer_that_breaks_a_rule_is_a_finding(outcome: Outcome, rule: str) -> None:
    found = judge(Case("segment.json", "POST /v1/segment"), outcome, deadlined=False)
    assert found is not None and found.rule == rule


def test_what_the_client_sent_is_no_leak() -> None:
    problem = Problem("invalid_argument", 400, "There is no variant '/etc/passwd'.")
    outcome = Outcome(400, b"", "application/problem+json", [problem])
    assert (
        judge(Case("segment.json", "POST /x", messages=(b'"/etc/passwd"',)), outcome, deadlined=False) is None
    )
    assert judge(Case("segment.json", "POST /x"), outcome, deadlined=False) is not None


def test_the_same_seed_draws_the_same_cases_and_a_failure_is_shrunk() -> None:
    drawn: list[list[Case]] = []
    for _ in range(2):
        drawn.append([])
        hunter = Hunter(_Refusing(drawn[-1]), float("inf"), lambda: 0)
        found = hunter.round(ENTRIES["artifact.manifest"], 7)
        assert found is not None and found.case.size == min(
            case.size for case in drawn[-1] if _Refusing.breaks(case)
        )
    assert drawn[0] == drawn[1] and len(drawn[0]) > 5


class _Refusing(Live):
    """Breaks a rule for every manifest that was changed much."""

    def __init__(self, drawn: list[Case]) -> None:
        super().__init__(Sender(1, 1, "", 1))
        self._drawn = drawn

    @staticmethod
    def breaks(case: Case) -> bool:
        return not re.match(rb'\{"variant"', case.body)

    def _send(self, case: Case) -> Outcome:
        self._drawn.append(case)
        return Outcome("raised", problems=[Problem("internal", "", "x")] if self.breaks(case) else [])
