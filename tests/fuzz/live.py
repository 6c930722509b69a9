"""What one fuzzing process sends with: its connections, and a session and an image that are alive."""

import json
import time

from tests.fuzz import bombs, offline, seeds
from tests.fuzz.case import LIVE_IMAGE, LIVE_SESSION, Case
from tests.fuzz.entries import ENTRIES
from tests.fuzz.oracle import Finding, judge
from tests.fuzz.senders import HangError, Outcome, Sender

# Ids are renewed well before the server forgets them (`target.TTL_S`).
_RENEW_S = 10.0
_DEADLINE_HEADERS = ("x-deadline-ms", "deadline")


class Live:
    """Sends cases, with live ids in the place of those that stand for them, and judges the outcomes."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.requests = 0
        self._session, self._image = "", ""
        self._session_s = self._image_s = 0.0

    def try_case(self, case: Case) -> tuple[Outcome | None, Finding | None]:
        """The outcome, None if there was none in time, and the first rule that it breaks."""
        self.requests += 1
        started = time.monotonic()
        try:
            outcome = self._send(case)
            late = time.monotonic() - started > self.sender.hang_s
        except HangError:
            outcome, late = None, True
        if outcome is None or late:
            self._session = self._image = ""
            return outcome, Finding("hang", f"no whole answer within {self.sender.hang_s:g} s")
        deadlined = any(name.lower() in _DEADLINE_HEADERS for name, _ in case.headers)
        return outcome, judge(case, outcome, deadlined=deadlined)

    def _send(self, case: Case) -> Outcome:
        if ENTRIES[case.entry].way == "offline":
            return offline.run(case)
        text = case.sent()
        uses_session, uses_image = LIVE_SESSION.encode() in text, LIVE_IMAGE.encode() in text
        if uses_session:
            self._renew_session()
        if uses_image:
            self._renew_image()
        alive = case.alive(self._session or LIVE_SESSION, self._image or LIVE_IMAGE)
        way = {
            "http": self.sender.http,
            "grpc": self.sender.grpc,
            "websocket": self.sender.websocket,
            "raw": self.sender.raw,
        }
        outcome = way[ENTRIES[case.entry].way](alive)
        if uses_session and outcome.answers and not self._reads_only(case):
            self._forget_session()
        if uses_image and "elete" in case.target.lower() + case.target:
            self._image = ""
        return outcome

    @staticmethod
    def _reads_only(case: Case) -> bool:
        return case.target.startswith("GET ") or case.target.endswith(
            ("/GetSession", "/ForkSession", "/fork")
        )

    def _renew_session(self) -> None:
        if self._session and time.monotonic() - self._session_s < _RENEW_S:
            return
        self._forget_session()
        opened = self.sender.http(
            Case("sessions.open", "POST /v1/sessions", (("Content-Type", "application/json"),), (b"{}",))
        )
        if opened.status == 201:
            self._session, self._session_s = json.loads(opened.body)["session"], time.monotonic()

    def _forget_session(self) -> None:
        if self._session:
            self.sender.http(Case("sessions.delete", f"DELETE /v1/sessions/{self._session}"))
        self._session = ""

    def _renew_image(self) -> None:
        if self._image and time.monotonic() - self._image_s < _RENEW_S:
            return
        body = bombs.multipart(("image", "a", "", seeds.png()))
        kept = self.sender.http(Case("images.multipart", "POST /v1/images", (bombs.MULTIPART,), (body,)))
        if kept.status == 200:
            self._image, self._image_s = json.loads(kept.body)["image"]["id"], time.monotonic()
