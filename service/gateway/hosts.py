"""Which names the gateway may be addressed by: a page of another name may have had it point here."""

from collections.abc import Sequence
from ipaddress import ip_address

from service.config import GatewaySettings
from service.errors import Kind, ServiceError

_ANY = "*"
# `localhost` and the names below it are loopback in every browser.
_LOOPBACK = ("localhost", "*.localhost")
# Probes and scrapers address a pod by whatever name they have for it, and read nothing that is private.
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})


class HostCheck:
    """Refuses requests whose `Host` is not a name of the gateway: protection against DNS rebinding.

    An attacker's page can point its own name at the gateway's address, so that the browser takes both for the
    same origin. It cannot do so with an IP address. A key protects as well: the page does not have it.
    """

    def __init__(self, settings: GatewaySettings, *, keyed: bool) -> None:
        self._allowed = tuple(name.lower() for name in (*_LOOPBACK, settings.host, *settings.allowed_hosts))
        self._active = bool(settings.allowed_hosts) or (not keyed and _is_loopback(settings.host))

    def check(self, host: str | None) -> None:
        """Raise ServiceError FORBIDDEN if `host`, the value of the header, is a foreign name.

        Requests without the header pass: every browser sends it.
        """
        if not self._active or not host:
            return
        name = _name(host)
        if _is_address(name) or _matches(name, self._allowed):
            return
        detail = (
            f"Host: {host[:200]!r} is not a name of this server; to allow it, add it to the setting "
            "allowed_hosts."
        )
        raise ServiceError(Kind.FORBIDDEN, detail)


def _name(host: str) -> str:
    """The host without its port and its final dot, in lower case; an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".").lower()


def _matches(name: str, allowed: Sequence[str]) -> bool:
    return any(
        pattern in (_ANY, name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
        for pattern in allowed
    )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _matches(host.lower(), _LOOPBACK) or (_is_address(host) and ip_address(host).is_loopback)
