"""A new artefact of a variant comes beside the old one, whose workers keep the sessions that they have."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store import artifact
from service.client import Client
from service.errors import Kind, ServiceError
from tests.deployment import Process
from tests.listed import ListedGateway
from tests.place import DEMO
from tests.redis_server import RedisServer
from tests.tracked_clip import clip, followed

VARIANT = DEMO.name


class House:
    """A gateway that reads its workers from a file, and workers of two artefacts of one variant."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.gateway = ListedGateway(folder, VARIANT, redis_url=redis_url)
        self.artefacts = {"old": DEMO, "new": _another(folder / "store")}
        self._addresses = {name: f"unix:{folder}/{name}.sock" for name in self.artefacts}
        self._workers = [
            Process(
                folder / f"{name}.log",
                {"EFFICIENTSAM3_REDIS_URL": redis_url},
                *("worker", VARIANT, "--store", str(place.parent), "--threads", "1"),
                *("--listen", self._addresses[name]),
            )
            for name, place in self.artefacts.items()
        ]

    @contextmanager
    def running(self) -> Iterator[Client]:
        """The old artefact is served meanwhile; who asks the gateway."""
        self.list({VARIANT: "old"})
        try:
            for worker in self._workers:
                worker.start()
            with self.gateway, Client(self.gateway.url) as client:
                self.gateway.wait(lambda: self.serves("old"))
                yield client
        finally:
            for worker in self._workers:
                worker.kill()

    def list(self, workers: dict[str, str], until: datetime | None = None) -> None:
        """Have the gateway know these artefacts' workers, by what it is to know them as; the old one's until
        a time."""
        listed: dict[str, Any] = {name: [self._addresses[artefact]] for name, artefact in workers.items()}
        for name, artefact in workers.items():
            if until and artefact == "old":
                listed[name] = {"workers": listed[name], "until": until.isoformat()}
        self.gateway.list(listed)

    def digits(self, name: str) -> str:
        """Of the artefact's digest, as many as a session's id has."""
        return artifact.load(self.artefacts[name]).digest[:12]

    def ready(self, name: str) -> float:
        """Workers that are, of what the gateway knows by this name."""
        return self.gateway.told("workers_ready", variant=name)

    def serves(self, name: str) -> bool:
        """Whether the variant is the artefact."""
        shown = httpx.get(f"{self.gateway.url}/v1/variants").json()["variants"]
        assert [each["name"] for each in shown] == [VARIANT]
        ready = shown[0]["workers_ready"] == 1
        return ready and shown[0]["digest"].startswith(f"sha256:{self.digits(name)}")


def _another(store: Path) -> Path:
    """An artefact of the same graphs whose manifest says something more."""
    place = store / VARIANT
    shutil.copytree(DEMO, place)
    manifest = json.loads((place / artifact.MANIFEST).read_text("utf-8"))
    manifest["source"]["again"] = True
    (place / artifact.MANIFEST).write_text(json.dumps(manifest), "utf-8")
    return place


def test_sessions_stay_with_their_artefact(tmp_path: Path, redis_server: RedisServer) -> None:
    frames = clip(6)
    house = House(tmp_path, redis_server.url)
    with house.running() as client:
        undisturbed = followed(client.open_session(), frames)
        old = client.open_session()
        answers = followed(old, frames[:2])

        kept = f"{VARIANT}@{house.digits('old')}"
        house.list({VARIANT: "new", kept: "old"})
        house.gateway.wait(lambda: house.serves("new") and house.ready(kept) == 1)
        answers += followed(old, frames[2:4])
        fork = old.fork()
        new = client.open_session()
        assert [house.digits("old") in each.id for each in (old, fork, new)] == [True, True, False]
        assert house.digits("new") in new.id
        assert followed(new, frames) == undisturbed
        assert followed(fork, frames[4:]) == undisturbed[4:]
        # What names no session is answered by the new one alone, and nobody asks for the old one by name.
        with pytest.raises(ServiceError) as unknown:
            client.open_session(variant=kept)
        assert unknown.value.kind is Kind.VARIANT_NOT_FOUND
        answers += followed(old, frames[4:])
        assert answers == undisturbed

        house.list({VARIANT: "new", kept: "old"}, until=datetime.now(UTC) + timedelta(seconds=2))
        assert house.ready(kept) == 1
        house.gateway.wait(lambda: house.ready(kept) == 0)
        with pytest.raises(ServiceError) as replaced:
            followed(old, frames[:1])
        assert replaced.value.kind is Kind.ARTEFACT_MISMATCH
        assert followed(client.open_session(), frames) == undisturbed
