"""TLS between gateway and worker: handshakes that succeed, and those that are refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from service.config import GatewaySettings
from service.gateway.facts import describe
from service.gateway.server import Gateway
from service.pb.efficientsam3.v1 import variants_pb2, variants_pb2_grpc
from service.worker.server import StartError
from tests.certificates import Authority, Shown
from tests.worker.conftest import Start, picture, run

BODY = {"request": (None, '{"prompts": [{"text": "dog"}]}'), "image": ("a.png", picture())}


class Files:
    """What each side has."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "ours")
        self.worker = self.authority.issue("workers.internal")
        self.gateway = self.authority.issue("gateway.internal")
        self.theirs = Authority(folder / "theirs")
        self.stranger = self.theirs.issue("stranger")

    @property
    def listening(self) -> dict[str, Any]:
        """Settings of a worker that takes our gateways alone."""
        return {
            "listen": "127.0.0.1:0",
            "listen_certificate": self.worker.certificate,
            "listen_key": self.worker.key,
            "listen_client_ca": self.authority.ca,
        }

    def asking(self, shown: Shown | None) -> dict[str, Any]:
        """Settings of a gateway that shows this, and believes in our workers."""
        pair = {"workers_certificate": shown.certificate, "workers_key": shown.key} if shown else {}
        return {"workers_ca": self.authority.ca, "workers_server_name": "workers.internal", **pair}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def gateway_of(port: int, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway of the worker at this port."""
    workers = {"tiny": [f"127.0.0.1:{port}"]}
    own = {"http_port": 0, "grpc_port": 0, "probe_interval_s": 0.05, "workers": workers}
    gateway = await Gateway.start(GatewaySettings(**{**own, **settings}), describe)
    try:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
            yield client
    finally:
        await gateway.stop(asyncio.Event())


def test_gateway_and_worker_know_each_other(start: Start, files: Files) -> None:
    async def scenario() -> None:
        async with (
            start(**files.listening) as worker,
            gateway_of(worker.worker.port, **files.asking(files.gateway)) as client,
        ):
            answer = await client.post("/v1/segment", files=BODY)
            assert answer.status_code == 200, answer.text

    run(scenario())


def test_whoever_is_not_known_is_not_answered(start: Start, files: Files) -> None:
    ours = files.asking(files.gateway)
    cases = {
        "no certificate": files.asking(None),
        "a stranger's": files.asking(files.stranger),
        "no TLS": {},
        "another authority": {**ours, "workers_ca": files.theirs.ca},
        "another name": {**ours, "workers_server_name": "others.internal"},
        "no name": {**ours, "workers_server_name": ""},
    }

    async def scenario() -> None:
        async with start(**files.listening) as worker:
            for name, settings in cases.items():
                async with gateway_of(worker.worker.port, **settings) as client:
                    answer = await client.post("/v1/segment", files=BODY, headers={"X-Deadline-Ms": "2000"})
                    assert answer.json()["type"] == "/problems/unavailable", name
                    assert "1 not reachable" in answer.json()["detail"]

    run(scenario())


def test_a_worker_may_take_whoever_knows_it(start: Start, files: Files) -> None:
    async def scenario() -> None:
        open_to_all = {**files.listening, "listen_client_ca": None}
        async with (
            start(**open_to_all) as worker,
            gateway_of(worker.worker.port, **files.asking(None)) as client,
        ):
            assert (await client.post("/v1/segment", files=BODY)).status_code == 200

    run(scenario())


def test_a_unix_socket_has_no_tls(start: Start, files: Files) -> None:
    async def scenario() -> None:
        settings = {name: value for name, value in files.listening.items() if name != "listen"}
        async with start(**settings) as worker:
            stub = variants_pb2_grpc.VariantsStub(worker.channel)
            told = await stub.GetVariant(variants_pb2.GetVariantRequest(), timeout=30)
            assert told.name == "tiny"

    run(scenario())


def test_settings_that_cannot_be_are_refused_by_name(start: Start, files: Files) -> None:
    async def scenario() -> None:
        for setting in ("listen_certificate", "listen_key"):
            with pytest.raises(StartError, match=f"{setting} is not: they are a pair"):
                async with start(**{**files.listening, setting: None}):
                    pass
        with pytest.raises(StartError, match=r"listen_client_ca .*: No such file or directory"):
            async with start(**{**files.listening, "listen_client_ca": Path("/nowhere.pem")}):
                pass

    run(scenario())


def test_a_plain_client_is_not_answered(start: Start, files: Files) -> None:
    async def scenario() -> None:
        async with (
            start(**files.listening) as worker,
            grpc.aio.insecure_channel(f"127.0.0.1:{worker.worker.port}") as channel,
        ):
            stub = variants_pb2_grpc.VariantsStub(channel)
            with pytest.raises(grpc.RpcError):
                await stub.GetVariant(variants_pb2.GetVariantRequest(), timeout=30)

    run(scenario())
