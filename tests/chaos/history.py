"""The recorded history of one piece of `make chaos`: calls, faults and samples of the store, as JSON lines.

Times are seconds since the piece began. Every record is a plain dataclass, so that a test can write a history
by hand and the checker needs no running service.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

OK = "ok"


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt of one request, as its client saw it."""

    client: str
    # The plan of frames that the session follows.
    plan: str
    # Empty while the session has no id yet.
    session: str
    # "open", "frame", "state", "delete"; "rollback": the client goes on from an earlier frame, as the outcome
    # says; "finish": every frame of the session is answered.
    action: str
    started_s: float
    ended_s: float
    # OK, or the kind of the error.
    outcome: str = OK
    frame: int = -1
    revision: int = 0
    # Of a frame: digest of the request, which another request for the same frame differs in.
    request: str = ""
    # 1 for the first time that this client sends the request.
    attempt: int = 1
    # Digest of the whole answer without its timings, and the masks (COCO RLE counts) by object.
    answer: str = ""
    masks: Mapping[str, str] = field(default_factory=dict)
    # Of "state" and "rollback": the frame that comes next; `revision` is that of the frame before it.
    next_frame: int = -1
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done to the deployment."""

    name: str
    target: str
    started_s: float
    ended_s: float
    # Of a fault that loses data by design: the writes acknowledged since are lost, -1 means all; else None.
    lost_since_s: float | None = None
    # When the data was lost.
    lost_at_s: float = 0.0
    # Of a corrupted session: its id.
    session: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """A session as the store had it at that time."""

    at_s: float
    session: str
    epoch: int
    nonce: str
    frame: int
    revision: int


@dataclass(frozen=True, slots=True)
class Crash:
    """A process that ended although no fault had ended it, or that logged a traceback."""

    at_s: float
    process: str
    detail: str


Record = Call | Fault | Sample | Crash
_KINDS: dict[str, type[Record]] = {kind.__name__: kind for kind in (Call, Fault, Sample, Crash)}


@dataclass(slots=True)
class History:
    """The records of one piece, in the order in which they ended. `file` receives each as it is added."""

    records: list[Record] = field(default_factory=list)
    file: TextIO | None = None

    def add(self, record: Record) -> None:
        """Append the record."""
        self.records.append(record)
        if self.file is not None:
            self.file.write(json.dumps({"is": type(record).__name__, **asdict(record)}) + "\n")
            self.file.flush()

    @property
    def calls(self) -> list[Call]:
        return [each for each in self.records if isinstance(each, Call)]

    @property
    def faults(self) -> list[Fault]:
        return [each for each in self.records if isinstance(each, Fault)]

    @property
    def samples(self) -> list[Sample]:
        return [each for each in self.records if isinstance(each, Sample)]

    @property
    def crashes(self) -> list[Crash]:
        return [each for each in self.records if isinstance(each, Crash)]


def read(file: Path) -> History:
    """Return the history that was written to the file."""
    history = History()
    for line in file.read_text("utf-8").splitlines():
        values: dict[str, Any] = json.loads(line)
        history.add(_KINDS[values.pop("is")](**values))
    return history


def digest(value: Any) -> str:
    """Return a short digest of JSON, or of bytes."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def answer_digest(answer: Mapping[str, Any]) -> str:
    """Return the digest of a frame's answer: all of it, to the bit, but the time it took."""
    return digest({name: value for name, value in answer.items() if name != "timings_ms"})


def masks_of(answer: Mapping[str, Any]) -> dict[str, str]:
    """Return the COCO RLE counts of the visible objects, by object."""
    objects: Iterable[Mapping[str, Any]] = answer["objects"]
    return {str(each["object"]): each["mask"]["counts"] for each in objects if each.get("mask")}
