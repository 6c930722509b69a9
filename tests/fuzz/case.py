"""One input of the fuzzer, and its form as a small JSON file of the corpus."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.fuzz import bombs

CORPUS = Path(__file__).parent / "corpus"

# Stand for an id that is alive when the case is sent; an id has as many characters, so protobuf lengths hold.
LIVE_SESSION = "demo.000000000000-" + 32 * "0"
LIVE_IMAGE = "sha256:" + 64 * "0"

# A message that is longer in the corpus' JSON than this is written in lines of its own.
_LINE = 100

Message = str | bytes


@dataclass(frozen=True, slots=True)
class Case:
    """One input: what is sent, and which row of the table sends it.

    target: "POST /v1/segment", a gRPC method's full name, a WebSocket's path, or what the row understands.
    messages: an HTTP body, gRPC messages, WebSocket messages, or raw bytes.
    made: builder and arguments of the messages, where they are too large for a file.
    refused: an answer without an error breaks a rule.
    """

    entry: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    messages: tuple[Message, ...] = ()
    made: tuple[Any, ...] = ()
    refused: bool = False

    @property
    def size(self) -> int:
        """Characters and bytes in all: the smallest failing case is kept."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.target) + headers + sum(len(message) + 1 for message in self.messages)

    @property
    def body(self) -> bytes:
        """The first message as bytes; empty without messages."""
        return _bytes(self.messages[0]) if self.messages else b""

    def sent(self) -> bytes:
        """All that the server sees of it, to compare answers with."""
        headers = [f"{name}: {value}".encode(errors="replace") for name, value in self.headers]
        return b"\n".join([self.target.encode(errors="replace"), *headers, *map(_bytes, self.messages)])

    def alive(self, session: str, image: str) -> "Case":
        """The case with live ids in the place of those that stand for them."""
        swaps = ((LIVE_SESSION, session), (LIVE_IMAGE, image))
        return replace(
            self,
            target=_swapped(self.target, swaps),
            messages=tuple(_swapped(message, swaps) for message in self.messages),
        )


def load(path: Path) -> Case:
    """The case of a corpus file."""
    return from_json(json.loads(path.read_text("utf-8")))


def from_json(value: Mapping[str, Any]) -> Case:
    """The case of a corpus file's JSON."""
    made = tuple(value.get("made", ()))
    messages = bombs.make(*made) if made else [_read(each) for each in value.get("messages", ())]
    headers = tuple((str(name), str(text)) for name, text in value.get("headers", ()))
    return Case(value["entry"], value["target"], headers, tuple(messages), made, value.get("refused", False))


def save(case: Case, found: Mapping[str, Any], folder: Path = CORPUS) -> Path:
    """Write the case with what it caused, and how to replay it. The name tells the row and the content."""
    digest = hashlib.sha256(case.sent()).hexdigest()[:10]
    path = folder / f"{case.entry.replace('.', '-')}-{digest}.json"
    value: dict[str, Any] = {"entry": case.entry, "target": case.target, "headers": case.headers}
    if case.made:
        value["made"] = case.made
    else:
        value["messages"] = [_written(message) for message in case.messages]
    if case.refused:
        value["refused"] = True
    value["found"] = {**found, "replay": f"python -m tests.fuzz --replay tests/fuzz/corpus/{path.name}"}
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
    return path


def _bytes(message: Message) -> bytes:
    return message.encode(errors="surrogatepass") if isinstance(message, str) else message


def _swapped(message: Any, swaps: tuple[tuple[str, str], ...]) -> Any:
    for stand_in, alive in swaps:
        if isinstance(message, str):
            message = message.replace(stand_in, alive)
        else:
            message = message.replace(stand_in.encode(), alive.encode())
    return message


def _read(value: Mapping[str, Any]) -> Message:
    if "text" in value:
        return str(value["text"])
    if "utf8" in value:
        return str(value["utf8"]).encode()
    return base64.b64decode("".join(value["base64"]))


def _written(message: Message) -> dict[str, Any]:
    if isinstance(message, str):
        return {"text": message}
    try:
        text = message.decode()
        if text.isprintable() or all(letter.isprintable() or letter in "\r\n\t" for letter in text):
            return {"utf8": text}
    except UnicodeDecodeError:
        pass
    encoded = base64.b64encode(message).decode()
    return {"base64": [encoded[at : at + _LINE] for at in range(0, len(encoded), _LINE)]}
