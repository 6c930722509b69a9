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
from tests.redis_server import RedisServer
from tests.serving import free_ports
from tests.tls_relay import TlsRelay

_TLS = {"redis": {"passwordSecret": {"name": "redis"}, "tls": {"enabled": True, "secret": "redis-tls"}}}


class Bundled:
    """A real redis-server with the chart's configuration and password, on loopback, in its own folder."""

    def __init__(self, rendered: Rendered, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.folder = folder
        config = rendered.one("ConfigMap", "redis")["data"]["redis.conf"]
        config = re.sub(r"^port 6379$", f"port {self.port}", config, flags=re.M)
        config = config.replace("/data", str(folder))
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
        return told.replace(place, f"@127.0.0.1:{self.port}/")

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


def test_with_tls_it_is_known_by_its_authority(tmp_path: Path, redis_server: RedisServer) -> None:
    authority = Authority(tmp_path / "authority")
    rendered = render(values=_TLS)
    (worker,) = rendered.workers()
    url = str(read_settings(container(worker), WorkerSettings).redis_url)
    # Our redis-server was built without TLS: a relay has it. It has no password either.
    told = url.replace(
        f":{PASSWORD.replace(' ', '%20')}@{RELEASE}-efficientsam3-redis:6379", "127.0.0.1:{port}"
    )
    here = told.replace("/etc/efficientsam3/redis/ca.crt", str(authority.ca))

    async def scenario() -> None:
        async with TlsRelay(redis_server.port, authority.issue("redis", "IP:127.0.0.1")) as relay:
            known = RedisStore(here.format(port=relay.port))
            await known.ping()
            await known.close()
            stranger = RedisStore(here.partition("?")[0].format(port=relay.port))
            with pytest.raises(ServiceError):
                await stranger.ping()
            await stranger.close()

    asyncio.run(scenario())
    config = rendered.one("ConfigMap", "redis")["data"]["redis.conf"].splitlines()
    assert {"port 0", "tls-port 6379"} <= set(config)
    mounts = {each["mountPath"] for each in container(rendered.one("StatefulSet", "redis"))["volumeMounts"]}
    files = [line.split()[1] for line in config if line.startswith("tls-") and "-file" in line]
    assert len(files) == 3 and {str(Path(file).parent) for file in files} <= mounts


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


def test_behind_sentinels_an_external_one_is_found_by_the_master_s_name() -> None:
    sentinel = {"master": "main", "hosts": ["a:7001", "b"], "passwordSecret": {"name": "t", "key": "k"}}
    values = {
        "redis": {
            "mode": "external",
            "external": {"username": "me@work", "db": 2, "sentinel": sentinel},
            "passwordSecret": {"name": "s"},
            "tls": {"enabled": True, "secret": "authority"},
        }
    }
    rendered, quoted = render(values=values), PASSWORD.replace(" ", "%20")
    for _, process, kind in processes(rendered):
        assert read_settings(process, kind).redis_url == (
            f"rediss+sentinel://me%40work:{quoted}@a:7001,b/main/2"
            f"?ssl_ca_certs=/etc/efficientsam3/redis/ca.crt&sentinel_password={quoted}"
        )
    for name in ("gateway", "worker"):
        rules = rendered.one("NetworkPolicy", name)["spec"]["egress"]
        assert {6379, 7001, 26379} <= {each["port"] for rule in rules for each in rule["ports"]}


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
