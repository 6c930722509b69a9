"""Clients of one running server: each asks again as soon as it has its answer."""

import base64
import http.client
import itertools
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import quantiles

from tests.load.peers.servers import FailedError, Running, Segments, Server, post

# A client whose request failed waits so long, so that a server that refuses is not asked without end.
_AFTER_FAILURE_S = 0.05


@dataclass(slots=True)
class Answers:
    """What became of the requests of one run."""

    # Of the answered, from sending to having the answer.
    seconds: list[float] = field(default_factory=list)
    # Of the others, by what was wrong.
    failures: Counter[str] = field(default_factory=Counter)
    # From the first request to the last answer.
    took_s: float = 0.0
    # Of the processor, by the server and all that it started.
    cpu_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Answered requests per second."""
        return len(self.seconds) / self.took_s if self.took_s else 0.0

    @property
    def cpu_ms(self) -> float:
        """Of the processor, for an answered request."""
        return 1e3 * self.cpu_s / len(self.seconds) if self.seconds else math.nan


def percentile_ms(seconds: Sequence[float], percent: int) -> float:
    """Of so many times; NaN of none."""
    if len(seconds) < 2:
        return 1e3 * sum(seconds) if seconds else math.nan
    return 1e3 * quantiles(seconds, n=100, method="inclusive")[percent - 1]


class Asking:
    """What a server is asked. Any thread may use it."""

    def __init__(self, server: Server, picture: bytes, text: str) -> None:
        """`picture` is a JPEG file."""
        self._server, self._picture, self._text = server, picture, text
        self._numbers = itertools.count()

    def body(self) -> bytes:
        """The next request. No two have the same bytes as their picture, so that no cache answers."""
        # What follows the end of a JPEG is nobody's business.
        data = self._picture + next(self._numbers).to_bytes(8, "big")
        return json.dumps(self._server.asked(base64.b64encode(data).decode(), self._text)).encode()

    def segments(self, connection: http.client.HTTPConnection) -> Segments:
        """What the server finds. Raises FailedError."""
        answer = post(connection, self._server.path, self.body())
        return self._server.found(json.loads(answer))

    def closed(self, one: Running, clients: int, seconds: float, least: int = 0) -> Answers:
        """So many clients, for so long and until `least` requests have ended."""
        answers = Answers()
        before, started = one.cpu_s(), time.perf_counter()
        threads = [
            threading.Thread(target=self._client, args=(one, answers, started + seconds, least))
            for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers.took_s = time.perf_counter() - started
        answers.cpu_s = one.cpu_s() - before
        return answers

    def _client(self, one: Running, answers: Answers, until: float, least: int) -> None:
        connection = one.connect()
        while (now := time.perf_counter()) < until or _ended(answers) < least:
            try:
                post(connection, self._server.path, self.body())
            except FailedError as error:
                answers.failures[str(error)] += 1
                time.sleep(_AFTER_FAILURE_S)
            else:
                answers.seconds.append(time.perf_counter() - now)
        connection.close()


def at_once(askings: Sequence[Asking], one: Running) -> list[Segments]:
    """What the server finds when all of them ask at the same time. Raises FailedError."""

    def ask(asking: Asking) -> Segments:
        connection = one.connect()
        try:
            return asking.segments(connection)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(askings)) as pool:
        return list(pool.map(ask, askings))


def _ended(answers: Answers) -> int:
    return len(answers.seconds) + answers.failures.total()
