"""TLS of the gateway's listeners: handshakes, refused ones too, and settings that cannot be."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from websockets import WebSocketException
from websockets.asyncio.client import connect

from service.config import ConfigurationError
from service.pb.efficientsam3.v1 import variants_pb2, variants_pb2_grpc
from tests.certificates import Authority, Shown
from tests.gateway.conftest import House

SESSION = f"other.{32 * '0'}"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Ours."""
    return Authority(tmp_path_factory.mktemp("authority") / "ours")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Shown:
    return authority.issue("localhost", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def client(authority: Authority) -> Shown:
    return authority.issue("client")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Of an authority that nobody knows."""
    return Authority(tmp_path_factory.mktemp("authority") / "theirs").issue("stranger", "IP:127.0.0.1")


def over_http(house: House, ca: Path, shown: Shown | None = None) -> int:
    """The status that a client hears who believes in this authority, and shows that."""
    with httpx.Client(verify=context(ca, shown)) as http:
        return http.get(f"{house.gateway.url}/v1/variants").status_code


def over_grpc(house: House, ca: Path, shown: Shown | None = None) -> int:
    """As many variants as such a client hears of."""
    chain, key = (shown.certificate.read_bytes(), shown.key.read_bytes()) if shown else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, chain)
    with grpc.secure_channel(house.gateway.grpc_address, credentials) as channel:
        stub = variants_pb2_grpc.VariantsStub(channel)
        return len(stub.ListVariants(variants_pb2.ListVariantsRequest(), timeout=30).variants)


def over_websocket(house: House, ca: Path, shown: Shown | None = None) -> str:
    """The kind of problem that such a client hears of a session that there is not."""
    address = f"wss{house.gateway.url.removeprefix('https')}/v1/sessions/{SESSION}/stream"

    async def told() -> str:
        # The library's blocking client has two threads on one TLS connection, which OpenSSL forbids.
        async with connect(address, ssl=context(ca, shown)) as socket:
            await socket.send(json.dumps({"frame": 0, "known_image": True}))
            return str(json.loads(await socket.recv())["type"])

    return asyncio.run(asyncio.wait_for(told(), 60))


def context(ca: Path, shown: Shown | None) -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=ca)
    if shown:
        made.load_cert_chain(*shown)
    return made


def listening(house: House, shown: Shown, **settings: Any) -> None:
    """A gateway with one variant that shows this."""
    house.open(house.worker(), tls_certificate=shown.certificate, tls_key=shown.key, **settings)


WAYS: tuple[Callable[..., Any], ...] = (over_http, over_grpc, over_websocket)
# How a refused handshake shows, by the way that was tried.
REFUSALS = (httpx.TransportError, grpc.RpcError, WebSocketException, OSError)


def test_whoever_trusts_our_authority_is_answered(house: House, server: Shown, authority: Authority) -> None:
    listening(house, server)
    assert house.gateway.url.startswith("https://")
    answers = [way(house, authority.ca) for way in WAYS]
    assert answers == [200, 1, "/problems/session_not_found"]


def test_a_gateway_of_another_authority_is_not_believed(
    house: House, stranger: Shown, authority: Authority
) -> None:
    listening(house, stranger)
    for way in WAYS:
        with pytest.raises(REFUSALS):
            way(house, authority.ca)


def test_nothing_is_answered_without_tls(house: House, server: Shown) -> None:
    listening(house, server)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{house.gateway.url.replace('https', 'http')}/healthz")
    with grpc.insecure_channel(house.gateway.grpc_address) as channel, pytest.raises(grpc.RpcError):
        variants_pb2_grpc.VariantsStub(channel).ListVariants(variants_pb2.ListVariantsRequest(), timeout=30)


def test_clients_may_have_to_show_a_certificate(
    house: House, server: Shown, client: Shown, stranger: Shown, authority: Authority
) -> None:
    listening(house, server, tls_client_ca=authority.ca)
    answers = [way(house, authority.ca, client) for way in WAYS]
    assert answers == [200, 1, "/problems/session_not_found"]
    for shown in (None, stranger):
        for way in WAYS:
            with pytest.raises(REFUSALS):
                way(house, authority.ca, shown)


@pytest.fixture
def files(server: Shown, client: Shown, authority: Authority, tmp_path: Path) -> dict[str, Path]:
    """Files by name, sound and broken."""
    empty, locked = tmp_path / "empty.pem", tmp_path / "locked.key"
    empty.write_bytes(b"")
    locking = ("openssl", "rsa", "-aes256", "-passout", "pass:word", "-in", str(server.key))
    subprocess.run([*locking, "-out", str(locked)], check=True, capture_output=True)
    return {
        "certificate": server.certificate,
        "key": server.key,
        "other": client.key,
        "ca": authority.ca,
        "empty": empty,
        "locked": locked,
        "absent": tmp_path / "absent.pem",
        "folder": tmp_path,
    }


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "no key": ({"tls_certificate": "certificate"}, "tls_certificate is set, and tls_key is not"),
    "no certificate": ({"tls_key": "key"}, "tls_key is set, and tls_certificate is not"),
    "an authority alone": ({"tls_client_ca": "ca"}, "tls_client_ca is set, and tls_certificate is not"),
    "another's key": (
        {"tls_certificate": "certificate", "tls_key": "other"},
        "are no certificate and its key: KEY_VALUES_MISMATCH",
    ),
    "a locked key": ({"tls_certificate": "certificate", "tls_key": "locked"}, "tls_key"),
    "no such file": ({"tls_certificate": "absent", "tls_key": "key"}, "tls_certificate"),
    "a folder": ({"tls_certificate": "certificate", "tls_key": "folder"}, "tls_key"),
    "an empty certificate": ({"tls_certificate": "empty", "tls_key": "key"}, "tls_certificate"),
    "an authority without certificates": (
        {"tls_certificate": "certificate", "tls_key": "key", "tls_client_ca": "empty"},
        "tls_client_ca",
    ),
    "an authority of workers that is not there": ({"workers_ca": "absent"}, "workers_ca"),
    "half of what workers are shown": (
        {"workers_ca": "ca", "workers_key": "key"},
        "workers_key is set, and workers_certificate is not",
    ),
    "a certificate for workers that are not known": (
        {"workers_certificate": "certificate", "workers_key": "key"},
        "workers_certificate is set, and workers_ca is not",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_settings_that_cannot_be_are_refused_by_name(house: House, files: dict[str, Path], case: str) -> None:
    named, says = WRONG[case]
    with pytest.raises(ConfigurationError, match=says):
        house.open(**{setting: files[file] for setting, file in named.items()})


def test_the_name_of_workers_needs_their_authority(house: House) -> None:
    with pytest.raises(ConfigurationError, match="workers_server_name is set, and workers_ca is not"):
        house.open(workers_server_name="workers")
