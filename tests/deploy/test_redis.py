"""The bundled Redis runs as the chart configures it, and our client reaches it by the address it is given."""

import asyncio
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio.connection import parse_url

from service.config import GatewaySettings, WorkerSettings
from service.errors import Kind, ServiceError
from service.processes import redis_command
from service.sessions.redis_store import RedisStore
from tests.certificates import Authority
from tests.deploy.containers import PASSWORD, container, environment, processes, read_settings
from tests.deploy.helm import LEAST, RELEASE, Rendered, render
from tests.serving import free_ports

_TLS = {"redis": {"passwordSecret": {"name": "redis"}, "tls": {"enabled": True, "secret": "redis-tls"}}}


class Bundled:
    """A real redis-server with the chart's configuration and password, on loopback, in its own folder."""

    def __init__(self, rendered: Rendered, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.folder = folder
        config = rendered.one("ConfigMap", "redis")["data"]["redis.conf"]
        config = re.sub(r"^(port|tls-port) 6379$", rf"\1 {self.port}", config, flags=re.M)
        config = config.replace("/data", str(folder)).replace("/etc/redis-tls", str(folder))
        (folder / "redis.conf").write_text(f"bind 127.0.0.1\n{config}")
        manifest = container(rendered.one("StatefulSet", "redis"))
        told = {**environment(manifest), "REDISCLI_AUTH": PASSWORD}
        words = [re.sub(r"\$\((\w+)\)", lambda found: told[found[1]], word) for word in manifest["command"]]
        assert words[:2] == ["redis-server", "/etc/redis/redis.conf"]
        binary = redis_command(0, folder, "no")[0]
        self.process = subprocess.Popen(
            [binary, str(folder / "redis.conf"), *words[2:]], stdout=subprocess.PIPE, text=True
        )

    def url(self, of: dict[str, Any], kind: type[GatewaySettings | WorkerSettings]) -> str:
        """The address that a process is given, with this one's place in it."""
        told = str(read_settings(of, kind).redis_url)
        place = f"@{RELEASE}-efficientsam3-redis:6379/"
        assert place in told
        return told.replace(place, f"@127.0.0.1:{self.port}/").replace(
            "/etc/efficientsam3/redis", str(self.folder)
        )

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=30)


@pytest.fixture
def bundled(tmp_path: Path) -> Iterator[Bundled]:
    server = Bundled(render(values=LEAST), tmp_path)
    yield server
    server.stop()


def _until_it_answers(client: redis.Redis) -> None:
    for _ in range(200):
        try:
            client.ping()
            return
        except redis.exceptions.ConnectionError:
            time.sleep(0.05)
    raise AssertionError("redis-server does not answer")


def test_it_keeps_what_it_was_told_and_drops_nothing(bundled: Bundled) -> None:
    with redis.Redis(port=bundled.port, password=PASSWORD) as client:
        _until_it_answers(client)
        said = client.config_get("*")
    assert said["appendonly"] == "yes" and said["appendfsync"] == "everysec" and said["save"] == ""
    assert said["maxmemory"] == str(1024**3) and said["maxmemory-policy"] == "noeviction"
    assert said["dir"] == str(bundled.folder)


def test_gateway_and_workers_reach_it_by_their_address_and_nobody_without_the_password(
    bundled: Bundled,
) -> None:
    with redis.Redis(port=bundled.port, password=PASSWORD) as client:
        _until_it_answers(client)
    urls = {bundled.url(process, kind) for _, process, kind in processes(render(values=LEAST))}
    (url,) = urls

    async def scenario() -> None:
        store = RedisStore(url)
        await store.ping()
        await store.close()
        stranger = RedisStore(f"redis://127.0.0.1:{bundled.port}/0")
        with pytest.raises(ServiceError) as failure:
            await stranger.ping()
        assert failure.value.kind is Kind.STORE_UNAVAILABLE
        await stranger.close()

    asyncio.run(scenario())


def test_with_tls_its_certificate_must_be_of_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    shown = authority.issue("redis", "IP:127.0.0.1")
    folder = tmp_path / "redis"
    folder.mkdir()
    for name, file in (("tls.crt", shown.certificate), ("tls.key", shown.key), ("ca.crt", authority.ca)):
        (folder / name).write_bytes(file.read_bytes())
    rendered = render(values=_TLS)
    server = Bundled(rendered, folder)
    try:
        worker = container(rendered.one("Deployment", "demo"))
        url = server.url(worker, WorkerSettings)
        if not _speaks_tls(server):
            pytest.skip("this redis-server was built without TLS")

        async def scenario() -> None:
            store = RedisStore(url)
            await store.ping()
            await store.close()
            wrong = RedisStore(url.partition("?")[0])
            with pytest.raises(ServiceError):
                await wrong.ping()
            await wrong.close()

        asyncio.run(scenario())
    finally:
        server.stop()


def _speaks_tls(server: Bundled) -> bool:
    client = redis.Redis(
        port=server.port,
        password=PASSWORD,
        ssl=True,
        ssl_ca_certs=str(server.folder / "ca.crt"),
        ssl_check_hostname=False,
    )
    with client:
        for _ in range(100):
            if server.process.poll() is not None:
                return False
            try:
                client.ping()
                return True
            except redis.exceptions.ConnectionError:
                time.sleep(0.05)
    raise AssertionError("redis-server does not answer")


@pytest.mark.parametrize(
    ("external", "parts"),
    [
        ({"host": "h"}, {"host": "h", "port": 6379, "db": 0}),
        ({"host": "h", "port": 7000, "db": 3}, {"host": "h", "port": 7000, "db": 3}),
    ],
)
def test_an_external_one_is_found_where_the_values_say(
    external: dict[str, Any], parts: dict[str, Any]
) -> None:
    values = {"redis": {"mode": "external", "external": external}}
    for _, process, kind in processes(render(values=values)):
        assert parse_url(read_settings(process, kind).redis_url) == parts


def test_an_external_one_has_a_user_a_password_and_an_authority_of_its_own() -> None:
    values = {
        "redis": {
            "mode": "external",
            "external": {"host": "h", "username": "me@work"},
            "passwordSecret": {"name": "s", "key": "k"},
            "tls": {"enabled": True, "secret": "authority"},
        }
    }
    rendered = render(values=values)
    assert not rendered.of_kind("StatefulSet")
    for _, process, kind in processes(rendered):
        parts = parse_url(read_settings(process, kind).redis_url)
        assert (parts["username"], parts["password"]) == ("me@work", PASSWORD)
        assert parts["ssl_ca_certs"] == "/etc/efficientsam3/redis/ca.crt"
        assert parts["connection_class"].__name__ == "SSLConnection"


def test_without_one_nothing_names_it() -> None:
    rendered = render(values={"redis": {"mode": "none"}})
    assert "redis" not in str([each for each in rendered.all if each["kind"] != "NetworkPolicy"]).lower()


def test_its_file_is_on_a_volume_of_its_own() -> None:
    redis_set = render(values=LEAST).one("StatefulSet", "redis")
    (claim,) = redis_set["spec"]["volumeClaimTemplates"]
    mounts = {each["name"]: each["mountPath"] for each in container(redis_set)["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == "/data"
    assert redis_set["spec"]["replicas"] == 1


def test_another_configuration_restarts_it() -> None:
    def pod(values: dict[str, Any]) -> Any:
        return render(values=values).one("StatefulSet", "redis")["spec"]["template"]

    other = {"redis": {"passwordSecret": {"name": "redis"}, "bundled": {"appendfsync": "always"}}}
    assert pod(dict(LEAST)) == pod(dict(LEAST)) != pod(other)
