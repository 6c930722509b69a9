"""Which addresses lie in the open internet."""

import pytest

from service.gateway.addresses import is_global

GLOBAL = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]

NOT_GLOBAL = {
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "private, class A": "10.1.2.3",
    "private, class B": "172.16.0.1",
    "private, class B's end": "172.31.255.255",
    "private, class C": "192.168.1.1",
    "a provider's own": "100.64.0.1",
    "a cloud's metadata in a provider's own": "100.100.100.200",
    "loopback": "127.0.0.1",
    "loopback's end": "127.255.255.255",
    "a cloud's metadata": "169.254.169.254",
    "a cloud's services": "168.63.129.16",
    "protocol assignments": "192.0.0.1",
    "a cloud's metadata in protocol assignments": "192.0.0.192",
    "an anycast protocol assignment": "192.0.0.9",
    "documentation 1": "192.0.2.1",
    "documentation 2": "198.51.100.1",
    "documentation 3": "203.0.113.1",
    "relays of 6to4": "192.88.99.1",
    "benchmarks": "198.19.255.255",
    "multicast": "224.0.0.1",
    "multicast of global scope": "233.252.0.1",
    "reserved": "240.0.0.1",
    "broadcast": "255.255.255.255",
    "IPv6 unspecified": "::",
    "IPv6 loopback": "::1",
    "IPv6 loopback, long": "0:0:0:0:0:0:0:1",
    "IPv6 link-local": "fe80::1",
    "IPv6 link-local with a zone": "fe80::1%eth0",
    "IPv6 global with a zone": "2606:4700::1%eth0",
    "IPv6 site-local": "fec0::1",
    "IPv6 unique local": "fd00:ec2::254",
    "IPv6 multicast": "ff02::1",
    "IPv6 multicast of global scope": "ff0e::1",
    "IPv6 documentation": "2001:db8::1",
    "IPv6 documentation, newer": "3fff::1",
    "IPv6 discard": "100::1",
    "IPv6 benchmarks": "2001:2::1",
    "IPv6 of no known use": "4000::1",
    "segment routing": "5f00::1",
    "mapped loopback": "::ffff:127.0.0.1",
    "mapped private": "::ffff:10.0.0.1",
    "mapped metadata, in hexadecimal": "::ffff:a9fe:a9fe",
    "compatible loopback": "::127.0.0.1",
    "translated loopback": "64:ff9b::127.0.0.1",
    "translated metadata": "64:ff9b::169.254.169.254",
    "translated in a local network": "64:ff9b:1::8.8.8.8",
    "6to4 of loopback": "2002:7f00:1::1",
    "6to4 of a global one": "2002:808:808::1",
    "Teredo": "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "ISATAP of loopback": "2606:4700::5efe:127.0.0.1",
    "ISATAP of a private one": "2606:4700::200:5efe:10.0.0.1",
    "a name": "localhost",
    "a short form": "127.1",
    "a number": "2130706433",
    "octal": "0177.0.0.1",
    "a network": "8.8.8.0/24",
    "nothing": "",
}


@pytest.mark.parametrize("address", GLOBAL)
def test_unicast_addresses_of_the_open_internet_are_global(address: str) -> None:
    assert is_global(address)


@pytest.mark.parametrize("kind", NOT_GLOBAL)
def test_every_other_kind_is_not(kind: str) -> None:
    assert not is_global(NOT_GLOBAL[kind])
