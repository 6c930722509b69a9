"""A new artefact of a variant comes beside the old one, whose workers keep the sessions that they have."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from model_store import artifact
from service.client import Client
from service.errors import Kind, ServiceError
from tests.deployment import Process
from tests.place import DEMO, PATIENCE_S
from tests.redis_server import RedisServer
from tests.serving import free_ports
from tests.tracked_clip import clip, followed

VARIANT = DEMO.name


class House:
    """A gateway that reads its workers from a file, and workers of two artefacts of one variant."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._file = folder / "workers.json"
        self.artefacts = {"old": DEMO, "new": _another(folder / "store")}
        self.addresses = {name: f"unix:{folder}/{name}.sock" for name in self.artefacts}
        self.list({VARIANT: "old"})
        shared = {"EFFICIENTSAM3_REDIS_URL": redis_url}
        self.workers = [
            Process(
                folder / f"{name}.log",
                shared,
                *("worker", VARIANT, "--store", str(place.parent), "--threads", "1"),
                *("--listen", self.addresses[name]),
            )
            for name, place in self.artefacts.items()
        ]
        http, grpc = free_ports(2)
        told = {"EFFICIENTSAM3_WORKERS_FILE": str(self._file), "EFFICIENTSAM3_DISCOVERY_INTERVAL_S": "0.1"}
        ports = ("--http-port", str(http), "--grpc-port", str(grpc))
        self.gateway = Process(folder / "gateway.log", shared | told, "gateway", *ports)
        self.url = f"http://127.0.0.1:{http}"

    def list(self, workers: dict[str, str]) -> None:
        """Have the gateway know these."""
        text = json.dumps({name: [self.addresses[worker]] for name, worker in workers.items()})
        self._file.with_suffix(".next").write_text(text)
        self._file.with_suffix(".next").rename(self._file)

    def digits(self, name: str) -> str:
        """Of the artefact's digest, as many as a session's id has."""
        return artifact.load(self.artefacts[name]).digest[:12]

    def ready(self, name: str) -> int:
        """Workers that are, of what the gateway knows by this name."""
        metric = f'efficientsam3_workers_ready{{variant="{name}"}} '
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return next((int(float(line.removeprefix(metric))) for line in lines if line.startswith(metric)), 0)

    def serves(self, name: str) -> bool:
        """Whether the variant is the artefact."""
        shown = httpx.get(f"{self.url}/v1/variants").json()["variants"]
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


def _wait(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not _quietly(true):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _quietly(true: Callable[[], bool]) -> bool:
    try:
        return true()
    except httpx.TransportError:
        return False


@contextmanager
def _running(house: House) -> Iterator[House]:
    processes = [*house.workers, house.gateway]
    for process in processes:
        process.start()
    try:
        _wait(lambda: house.serves("old"))
        yield house
    finally:
        for process in processes:
            process.kill()


def test_sessions_stay_with_their_artefact(tmp_path: Path, redis_server: RedisServer) -> None:
    frames = clip(6)
    with _running(House(tmp_path, redis_server.url)) as house, Client(house.url) as client:
        undisturbed = followed(client.open_session(), frames)
        old = client.open_session()
        answers = followed(old, frames[:2])

        kept = f"{VARIANT}@{house.digits('old')}"
        house.list({VARIANT: "new", kept: "old"})
        _wait(lambda: house.serves("new") and house.ready(kept) == 1)
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

        house.list({VARIANT: "new"})
        _wait(lambda: house.ready(kept) == 0)
        with pytest.raises(ServiceError) as replaced:
            followed(old, frames[:1])
        assert replaced.value.kind is Kind.ARTEFACT_MISMATCH
        assert followed(client.open_session(), frames) == undisturbed
