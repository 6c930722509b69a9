"""What goes over the page's WebSockets."""

import base64
import json
import time
from typing import Any

from playwright.sync_api import Page, WebSocket

# For an answer, beside other work and while a worker comes back.
_PATIENCE_S = 120.0
# No message is told of later than so long after another, or after it was shown, milliseconds.
_LATE_MS = 300
# Notes what is sent: the browser itself tells no test of the images.
_NOTE = """
(() => {
  const noted = (window.notedMessages = []);
  const { send } = WebSocket.prototype;
  WebSocket.prototype.send = function (message) {
    noted.push(message);
    return send.call(this, message);
  };
})();
"""
_TELL = """
async () => {
  const read = (message) => new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve({ image: reader.result.split(",")[1] });
    reader.readAsDataURL(message);
  });
  const told = (message) => (typeof message === "string" ? { text: message } : read(message));
  return Promise.all(window.notedMessages.map(told));
}
"""


class Wire:
    """Of a page that is not opened yet."""

    def __init__(self, page: Page) -> None:
        self._page = page
        # In the order in which they came.
        self.answers: list[dict[str, Any]] = []
        self.refusals: list[dict[str, Any]] = []
        self.urls: list[str] = []
        page.add_init_script(_NOTE)
        page.on("websocket", self._opened)

    @property
    def sent(self) -> list[tuple[dict[str, Any], bytes | None]]:
        """Frames as they were asked for, each with its image, if one came along."""
        asked: list[tuple[dict[str, Any], bytes | None]] = []
        for message in self._page.evaluate(_TELL):
            if "text" in message:
                asked.append((json.loads(message["text"]), None))
            else:
                asked[-1] = asked[-1][0], base64.b64decode(message["image"])
        return asked

    def frames(self) -> list[bytes]:
        """Every frame's image, in order."""
        images = {request["frame"]: image for request, image in self.sent if image is not None}
        assert sorted(images) == list(range(len(images)))
        return [images[index] for index in sorted(images)]

    def last(self) -> dict[int, dict[str, Any]]:
        """The last answer to every frame."""
        return {answer["frame"]: answer for answer in self.settled()}

    def settled(self) -> list[dict[str, Any]]:
        """Every answer, in the order in which they came. The browser may tell of one after it is shown."""
        known = -1
        while known != len(self.answers):
            known = len(self.answers)
            self._page.wait_for_timeout(_LATE_MS)
        return self.answers

    def sessions(self) -> set[str]:
        """Ids of the sessions that were streamed."""
        return {url.split("/sessions/")[1].split("/")[0] for url in self.urls}

    def answered(self, frame: int, revision: int = 0) -> dict[str, Any]:
        """That answer, once it has come and is shown."""
        until = time.monotonic() + _PATIENCE_S
        while time.monotonic() < until:
            for answer in self.answers:
                if (answer["frame"], answer["revision"]) == (frame, revision):
                    self._page.wait_for_function(
                        "() => document.getElementById('video-objects').ariaBusy === 'false'"
                    )
                    return answer
            self._page.wait_for_timeout(50)
        raise AssertionError(f"frame {frame}, revision {revision} was not answered: {self.refusals}")

    def _opened(self, socket: WebSocket) -> None:
        self.urls.append(socket.url)
        socket.on("framereceived", self._received)

    def _received(self, payload: str | bytes) -> None:
        body = json.loads(payload)
        (self.refusals if "type" in body else self.answers).append(body)
