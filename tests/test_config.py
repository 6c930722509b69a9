"""Settings that cannot be are refused by name, before anything listens or connects."""

from typing import Any

import pytest

from service.cli_common import CommandError, settings_of
from service.config import ServeSettings

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no port": ({"listen": "localhost"}, "setting listen: 'localhost' is not host:port or unix:/path"),
    "a port too high": ({"listen": "localhost:65536"}, "setting listen: 'localhost:65536' is not host:port"),
    "no host": ({"listen": ":50061"}, "setting listen: ':50061' is not host:port"),
    "an HTTP address": ({"listen": "http://a:50061"}, "setting listen: 'http://a:50061' is not host:port"),
    "IPv6 without brackets": ({"listen": "::1:50061"}, "setting listen: '::1:50061' is not host:port"),
    "a relative socket": ({"listen": "unix:a.sock"}, "setting listen: 'unix:a.sock' is not host:port"),
    "a worker without a port": (
        {"workers": {"demo": ["a:1", "b"]}},
        "setting workers.demo.1: 'b' is not host:port or unix:/path",
    ),
    "another kind of store": (
        {"redis_url": "http://:secret@host"},
        "setting redis_url: it must begin with redis://, rediss://, unix://",
    ),
    "sentinels without the master's name": (
        {"redis_url": "redis+sentinel://:secret@a:26379,b"},
        "setting redis_url: it must begin with redis://, rediss://, unix://, or be "
        "redis+sentinel://HOST:PORT,.../MASTER/DB",
    ),
    "a collector without a scheme": (
        {"trace_endpoint": "collector:4317"},
        "setting trace_endpoint: 'collector:4317' is not http://host:port or https://host:port",
    ),
    "a collector with a path": (
        {"trace_endpoint": "http://collector:4317/v1/traces"},
        "setting trace_endpoint: 'http://collector:4317/v1/traces' is not http://host:port",
    ),
    "more than all traces": (
        {"trace_sample_ratio": 1.5},
        "setting trace_sample_ratio: Input should be less than or equal to 1",
    ),
    "images kept for no time": (
        {"image_ttl_s": 0},
        "setting image_ttl_s: Input should be greater than or equal to 1",
    ),
    "too many threads": ({"threads": 1025}, "setting threads: Input should be less than or equal to 1024"),
    "a limit on prompts beyond the bound": (
        {"max_prompts": 5000},
        "setting max_prompts: Input should be less than or equal to 4096",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_setting_that_cannot_be_is_refused_by_name(case: str) -> None:
    options, line = WRONG[case]
    with pytest.raises(CommandError) as failure:
        settings_of(ServeSettings, **options)
    assert str(failure.value).startswith(line)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "localhost:50061", "[::1]:65535", "unix:/run/a b.sock", "unix:///run/a.sock"]
)
def test_addresses_are_taken_as_they_are(address: str) -> None:
    settings = settings_of(ServeSettings, listen=address, workers={"demo": [address]})
    assert (settings.listen, settings.workers) == (address, {"demo": [address]})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://host:6379/0",
        "rediss://host",
        "unix:///run/redis.sock",
        "redis+sentinel://a/main",
        "rediss+sentinel://me:secret@a:26379,[::1]:26379/main/1?ssl_ca_certs=/ca.crt",
    ],
)
def test_session_stores_are_taken_as_they_are(url: str) -> None:
    assert settings_of(ServeSettings, redis_url=url).redis_url == url
