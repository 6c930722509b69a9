"""Which network addresses lie in the open internet: those an image may be fetched from."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# All global unicast addresses of IPv6 lie here; those of other kinds that do are named below.
_UNICAST_6 = IPv6Network("2000::/3")
# `is_global` differs between releases of Python: what matters is said here, whatever the release.
_REFUSED_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by a provider's customers
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's own services, seen from each of its machines
        "169.254.0.0/16",  # link-local, where clouds keep their machines' credentials
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_REFUSED_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them: it carries IPv4
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: it carries IPv4
        "3fff::/20",  # documentation
    )
)
# Where a network without IPv4 has IPv4 hosts translated: the last 32 bits are the host's address.
_NAT64 = IPv6Network("64:ff9b::/96")
# The last 64 bits of ISATAP begin so, and end with an IPv4 address.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def is_global(address: str) -> bool:
    """Whether `address`, as a resolver writes it, is a unicast address of the open internet.

    An IPv6 address that stands for an IPv4 one is judged by that one, or refused.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _is_global_4(parsed) if isinstance(parsed, IPv4Address) else _is_global_6(parsed)


def _is_global_4(address: IPv4Address) -> bool:
    return address.is_global and not any(address in network for network in _REFUSED_4)


def _is_global_6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    if address.ipv4_mapped is not None:
        return _is_global_4(address.ipv4_mapped)
    if address in _NAT64:
        return _is_global_4(IPv4Address(int(address) & 0xFFFF_FFFF))
    if address not in _UNICAST_6 or not address.is_global:
        return False
    isatap = (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP
    return not isatap and not any(address in network for network in _REFUSED_6)
