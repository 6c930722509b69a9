"""Workers and variants that come and go while a gateway runs."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from service.config import ConfigurationError
from tests.gateway.conftest import House
from tests.gateway.fake_worker import FakeWorker
from tests.gateway.test_router import BODY, Asking
from tests.serving import free_ports

SOON = 0.05


def _until(house: House, holds: Callable[[], bool]) -> None:
    while not holds():
        house.run(asyncio.sleep(0.01))


def _write(file: Path, *workers: FakeWorker) -> None:
    """As Kubernetes does: a whole new file in the place of the old one."""
    named: dict[str, list[str]] = {}
    for worker in workers:
        named.setdefault(worker.variant, []).append(worker.address)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(named))
    new.replace(file)


def _served(house: House) -> dict[str, int]:
    told = house.http.get("/readyz").json()["variants"]
    return {variant: pool["workers_ready"] for variant, pool in told.items()}


def test_variants_and_workers_of_a_file_come_and_go(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two, other = house.worker(), house.worker(), house.worker("other")
    for worker in (one, two, other):
        house.run(worker.start())
    _write(file := tmp_path / "workers.json", one)
    house.open(workers_file=file, discovery_interval_s=SOON)
    house.wait_ready()
    assert house.http.get("/readyz").json()["default_variant"] == "demo"
    _write(file, one, two, other)
    _until(house, lambda: _served(house) == {"demo": 2, "other": 1})
    house.tell(one.gate.clear)
    house.tell(two.gate.clear)
    asking = [Asking(house) for _ in range(2)]
    assert one.arrived.wait(30) and two.arrived.wait(30)
    _write(file, other)
    _until(house, lambda: _served(house) == {"other": 1})
    refused = house.http.post("/v1/segment", json={**BODY, "variant": "demo"})
    assert refused.status_code == 404 and "configured: other" in refused.json()["detail"]
    # What they have they finish.
    house.tell(one.gate.set)
    house.tell(two.gate.set)
    assert [each.answer().status_code for each in asking] == [200, 200]
    file.write_text("{")
    _until(house, lambda: "The workers stay as they were" in caplog.text)
    assert _served(house) == {"other": 1} and str(file) in caplog.text
    _write(file, one, other)
    _until(house, lambda: _served(house) == {"demo": 1, "other": 1})
    assert house.http.post("/v1/segment", json={**BODY, "variant": "demo"}).status_code == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "No such file"),
        ("[]", "should be an object"),
        ('{"demo": ["nowhere"]}', "demo.0: 'nowhere' is not host:port"),
        ('{"demo": ["dns:unix:/a"]}', "'unix:/a' is not host:port"),
        (
            '{"demo": {"workers": ["nowhere"], "until": "2026-12-31T00:00:00Z"}}',
            "demo.workers.0: 'nowhere' is not",
        ),
        ('{"demo": {"workers": []}}', "demo.until: Field required"),
        (
            '{"demo": {"workers": [], "until": "2026-12-31T00:00:00"}}',
            "demo.until: Input should have timezone info",
        ),
        ('{"demo@12345": []}', "'demo@12345' is neither VARIANT nor VARIANT@ and 8 to 64 hexadecimal digits"),
    ],
)
def test_a_file_that_cannot_be_is_an_error_at_the_start(
    house: House, tmp_path: Path, text: str | None, says: str
) -> None:
    file = tmp_path / "workers.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        house.open(workers_file=file)
    assert says in str(error.value) and "workers_file" in str(error.value) and str(file) in str(error.value)


def test_a_name_stands_for_all_the_addresses_that_it_has(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own lookup is replaced: which names there are is not ours to say."""
    (port,) = free_ports(1)
    workers = [FakeWorker("demo", f"127.0.0.{last}:{port}") for last in (1, 2)]
    house._workers += workers
    for worker in workers:
        house.run(worker.start())
    answer: list[str] | socket.gaierror = ["127.0.0.1"]
    lookup = socket.getaddrinfo

    def looked_up(host: str, port: int, *rest: int, **more: int) -> object:
        if host != "workers.local":
            return lookup(host, port, *rest, **more)
        if isinstance(answer, socket.gaierror):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answer]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    house.open(workers={"demo": [f"dns:workers.local:{port}"]}, discovery_interval_s=SOON)
    house.wait_ready(workers=1)
    answer = ["127.0.0.2", "127.0.0.1", "127.0.0.2"]
    house.wait_ready(workers=2)
    answer = socket.gaierror(socket.EAI_AGAIN, "try again")
    house.run(asyncio.sleep(3 * SOON))
    assert _served(house) == {"demo": 2}
    answer = ["127.0.0.2"]
    house.wait_ready(workers=1)
    assert house.http.post("/v1/segment", json=BODY).status_code == 200
    assert [len(worker.asked) for worker in workers] == [0, 1]
    answer = socket.gaierror(socket.EAI_NONAME, "no such name")
    house.wait_ready(workers=0)
