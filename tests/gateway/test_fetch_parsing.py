"""Addresses that programs read differently: what one checks is not what another asks."""

import pytest

from service.gateway.fetch import Fetcher
from tests.gateway.internet import GLOBAL, NAME, Internet, fetch, page, play, refused

BACKSLASH = chr(92)
UNREACHABLE = "no address, or one that is not of the open internet"
REFUSED = {
    f"http://localhost:6666{BACKSLASH}@{NAME}:PORT/": "a user's name or password",
    f"http://{NAME}:PORT{BACKSLASH}@localhost/": "a user's name or password",
    f"http://localhost{BACKSLASH}.{NAME}:PORT/": UNREACHABLE,
    f"http://{NAME}:PORT{BACKSLASH}.localhost/": "cannot be read",
    f"http:{BACKSLASH}{BACKSLASH}{NAME}:PORT/": "it names no host",
    f"http://{NAME}{BACKSLASH}:PORT/": UNREACHABLE,
    f"http://{NAME}\t:PORT/": "cannot be read",
    f"ht\ntp://{NAME}:PORT/": "cannot be read",
    f" http://{NAME}:PORT/": "",
    f"http://{NAME} :PORT/": UNREACHABLE,
    f"http://localhost%2f@{NAME}:PORT/": "a user's name or password",
    f"http://@{NAME}:PORT/": "",
    f"http://{NAME}%2elocalhost:PORT/": UNREACHABLE,
    "http://%6c%6fcalhost:PORT/": UNREACHABLE,
    "http://[fe80::1%25eth0]:PORT/": UNREACHABLE,
    "http://[fe80::1%eth0]:PORT/": UNREACHABLE,
    "http://2130706433:PORT/": UNREACHABLE,
    "http://0x7f000001:PORT/": UNREACHABLE,
    "http://127.1:PORT/": UNREACHABLE,
    "http://0177.0.0.1:PORT/": "cannot be read",
    "http://127.0.0.1.:PORT/": UNREACHABLE,
    "http://\uff11\uff12\uff17.0.0.1:PORT/": "cannot be read",
    "http://loc\u00adalhost:PORT/": "cannot be read",
    f"http://{NAME};localhost:PORT/": UNREACHABLE,
    f"http://{NAME},localhost:PORT/": UNREACHABLE,
    f"http://{NAME}..localhost:PORT/": UNREACHABLE,
    f"http://{64 * 'a'}.test:PORT/": UNREACHABLE,
    f"http://{NAME}:PORT:80/": "cannot be read",
    f"http://{NAME}:+PORT/": "",
}


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_can_be_read_in_two_ways_is_refused(address: str) -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = page()
        url = address.replace("PORT", str(internet.port))
        if REFUSED[address]:
            assert REFUSED[address] in await refused(_resolving_all(internet), url)
            assert not internet.asked
        else:
            # Harmless, or refused: nothing but the named host is asked.
            assert await fetch(_resolving_all(internet), url.strip()) == b"an image"
            assert [asked.headers["host"] for asked in internet.asked] == [f"{NAME}:{internet.port}"]

    play(scenario)


def _resolving_all(internet: Internet) -> Fetcher:
    """A fetcher for which every name and number leads to the one server that it may ask."""

    async def resolve(host: str, port: int) -> list[str]:
        return [GLOBAL]

    return internet.fetcher(resolve=resolve)


@pytest.mark.parametrize(
    "host", ["xn--fa-hia.test", "a_b.test", "a-.test", "8.test", f"{NAME}.", NAME.upper()]
)
def test_plain_names_are_fetched(host: str) -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = page()
        assert await fetch(_resolving_all(internet), f"http://{host}:{internet.port}/") == b"an image"

    play(scenario)
