"""Fetching images by address: what is taken, and everything that a hostile address or name may try."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from service.gateway.fetch import PORTS, Fetcher
from tests.gateway.internet import GLOBAL, NAME, PRIVATE, Internet, fetch, page, play, redirect, refused


def test_an_image_is_fetched_by_a_plain_request_without_anything_of_ours() -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/a/b.jpg?size=1"] = page()
        assert await fetch(internet.fetcher(), f"{internet.base}/a/b.jpg?size=1#top") == b"an image"
        (asked,) = internet.asked
        assert asked.headers == {
            "host": f"{NAME}:{internet.port}",
            "accept": "image/*",
            "accept-encoding": "identity",
            "connection": "close",
            "user-agent": "efficientsam3-service",
        }

    play(scenario)


def test_the_environments_proxies_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = page()
        assert await fetch(internet.fetcher(), internet.base) == b"an image"

    play(scenario)


def test_a_body_without_an_announced_length_is_taken() -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/close"] = page(content_length="")
        chunks = b"3\r\nan \r\n5\r\nimage\r\n0\r\n\r\n"
        internet.pages["/chunked"] = page(chunks, content_length="", transfer_encoding="chunked")
        for path in ("/close", "/chunked"):
            assert await fetch(internet.fetcher(), internet.base + path) == b"an image"

    play(scenario)


ADDRESSES = {
    "file:///etc/passwd": "it names no host",
    "ftp://pictures.test/a": "only http and https",
    "gopher://pictures.test/a": "only http and https",
    "unix:///run/a.sock": "it names no host",
    "//pictures.test/a": "only http and https",
    "pictures.test/a": "it names no host",
    "http:///a": "it names no host",
    "http://": "it names no host",
    "http://user@pictures.test:PORT/": "a user's name or password",
    "http://user:secret@pictures.test:PORT/": "a user's name or password",
    "http://other.test\\@pictures.test:PORT/": "a user's name or password",
    "http://pictures.test/": "only the ports",
    "http://pictures.test:0/": "only the ports",
    "http://pictures.test:22/": "only the ports",
    "http://pictures.test:99999/": "only the ports",
    "http://pictures.test:PORT/\r\nX: y": "cannot be read",
    "http://[::1": "cannot be read",
    "http://xn--:PORT/": "cannot be read",
    "http://pictures.test:PORT/" + "a" * 8192: "more characters than the limit of 8,192",
    "http://nowhere.test:PORT/": "no address, or one that is not of the open internet",
    "http://private.test:PORT/": "no address, or one that is not of the open internet",
    "http://mixed.test:PORT/": "no address, or one that is not of the open internet",
    "http://empty.test:PORT/": "no address, or one that is not of the open internet",
    "http://aliased.test:PORT/": "no address, or one that is not of the open internet",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_that_may_not_be_asked_is_refused_before_anything_is_sent(address: str) -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = page()
        internet.names |= {
            "private.test": [[PRIVATE]],
            # One bad address among good ones is enough: which is used is not the client's to choose.
            "mixed.test": [[GLOBAL, PRIVATE]],
            "empty.test": [[]],
            "aliased.test": [["localhost"]],
        }
        url = address.replace("PORT", str(internet.port))
        assert ADDRESSES[address] in await refused(internet.fetcher(), url)
        assert not internet.asked

    play(scenario)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "2130706433", "0", "[::ffff:127.0.0.1]"]
)
def test_loopback_is_refused_however_it_is_written(host: str) -> None:
    async def scenario(internet: Internet) -> None:
        ours = Fetcher(1000, 30, ports={internet.port})
        detail = await refused(ours, f"http://{host}:{internet.port}/")
        assert "not of the open internet" in detail
        assert not internet.asked

    play(scenario)


def test_only_the_ports_of_the_web_are_taken() -> None:
    async def scenario(internet: Internet) -> None:
        for url in (internet.base, f"http://{NAME}:0/", f"https://{NAME}:8080/"):
            detail = await refused(internet.fetcher(ports=PORTS), url)
            assert "only the ports 80, 443 are taken" in detail

    play(scenario)


def test_a_name_is_looked_up_once_and_the_checked_address_is_the_one_that_is_asked() -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = page()
        internet.names[NAME] = [[GLOBAL], [PRIVATE]]
        assert await fetch(internet.fetcher(), internet.base) == b"an image"
        assert internet.looked_up == [NAME]
        assert "not of the open internet" in await refused(internet.fetcher(), internet.base)
        assert len(internet.asked) == 1

    play(scenario)


def test_a_name_that_changes_between_redirects_is_checked_anew() -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages |= {"/": redirect("/again"), "/again": page()}
        internet.names[NAME] = [[GLOBAL], [PRIVATE]]
        assert "not of the open internet" in await refused(internet.fetcher(), internet.base)
        assert [asked.path for asked in internet.asked] == ["/"]

    play(scenario)


def test_the_next_address_is_asked_when_one_does_not_answer() -> None:
    async def scenario(internet: Internet) -> None:
        internet.pages["/"] = page()
        internet.names[NAME] = [["::1", GLOBAL]]
        fetcher = internet.fetcher(allowed=lambda address: True)
        assert await fetch(fetcher, internet.base) == b"an image"
        internet.names[NAME] = [["::1"]]
        assert "no connection" in await refused(fetcher, internet.base)

    play(scenario)


@pytest.mark.parametrize("status", ["301", "302", "303", "307", "308"])
def test_redirects_are_followed_without_cookies(status: str) -> None:
    async def scenario(internet: Internet) -> None:
        internet.names["other.test"] = [[GLOBAL]]
        internet.pages |= {
            "/a/b": redirect("../c", f"{status} There", set_cookie="id=1; Path=/"),
            "/c": redirect(f"//other.test:{internet.port}/d", f"{status} There"),
            "/d": page(),
        }
        assert await fetch(internet.fetcher(), f"{internet.base}/a/b") == b"an image"
        assert [asked.path for asked in internet.asked] == ["/a/b", "/c", "/d"]
        assert internet.asked[2].headers["host"] == f"other.test:{internet.port}"
        assert not any({"cookie", "referer"} & asked.headers.keys() for asked in internet.asked)

    play(scenario)


REDIRECTS = {
    "http://127.0.0.1:PORT/secret": "not of the open internet",
    "http://localhost:PORT/secret": "not of the open internet",
    "http://private.test:PORT/secret": "not of the open internet",
    "http://169.254.169.254:PORT/latest/meta-data": "not of the open internet",
    "http://user:secret@pictures.test:PORT/secret": "a user's name or password",
    "http://pictures.test:22/secret": "only the ports",
    "file:///etc/passwd": "it names no host",
    "ftp://pictures.test/secret": "only http and https",
    "http://[::1": "broke off, or does not speak HTTP",
    "/loop": "redirects more than 3 times",
}


@pytest.mark.parametrize("location", REDIRECTS)
def test_a_redirect_to_what_may_not_be_asked_is_refused(location: str) -> None:
    async def scenario(internet: Internet) -> None:
        internet.names["private.test"] = [[PRIVATE]]
        there = location.replace("PORT", str(internet.port))
        internet.pages |= {"/": redirect(there), "/loop": redirect("/loop"), "/secret": page()}
        assert REDIRECTS[location] in await refused(internet.fetcher(), internet.base)
        assert "/secret" not in [asked.path for asked in internet.asked]
        assert len(internet.asked) == (4 if location == "/loop" else 1)

    play(scenario)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for pictures.test that signed itself, with its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={NAME} -addext"
    arguments = [*command.split(), f"subjectAltName=DNS:{NAME}", "-keyout", file, "-out", f"{file}.crt"]
    subprocess.run(arguments, check=True, capture_output=True)
    with file.open("ab") as both:
        both.write(Path(f"{file}.crt").read_bytes())
    return file


def test_a_certificate_must_be_for_the_name_that_was_asked_for(certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    believing = ssl.create_default_context(cafile=certificate)

    async def scenario(internet: Internet) -> None:
        internet.names["other.test"] = [[GLOBAL]]
        internet.pages |= {
            "/": page(),
            "/down": redirect(f"http://{NAME}:{internet.port}/"),
            "/away": redirect(f"https://other.test:{internet.port}/"),
        }
        fetcher = internet.fetcher(tls=believing)
        assert await fetch(fetcher, internet.base) == b"an image"
        assert internet.asked[0].server_name == NAME
        assert "from https to http" in await refused(fetcher, f"{internet.base}/down")
        unproven = "none with a valid certificate"
        assert unproven in await refused(fetcher, f"{internet.base}/away")
        assert unproven in await refused(internet.fetcher(), internet.base), "it signed itself"
        assert [asked.path for asked in internet.asked] == ["/", "/down", "/away"]

    play(scenario, server)
