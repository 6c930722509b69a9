"""TLS of the listeners and of the way to workers, from files that are checked before anything listens."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
import grpc.aio

from service.config import ConfigurationError, GatewaySettings, WorkerSettings

_UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Listener:
    """What a listener shows, and whose clients it takes."""

    certificate: Path
    key: Path
    # Authorities of clients' certificates; None: clients need none.
    client_ca: Path | None
    # All of this for gRPC.
    credentials: grpc.ServerCredentials


@dataclass(frozen=True, slots=True)
class Trust:
    """How a gateway knows workers, and they it."""

    credentials: grpc.ChannelCredentials
    # The name in workers' certificates; empty: the host of each one's address.
    server_name: str


def of_gateway(settings: GatewaySettings) -> Listener | None:
    """The gateway's listeners'; None: there is no TLS. Raises ConfigurationError that names the setting."""
    return _listener(
        _File("tls_certificate", settings.tls_certificate),
        _File("tls_key", settings.tls_key),
        _File("tls_client_ca", settings.tls_client_ca),
    )


def of_worker(settings: WorkerSettings) -> Listener | None:
    """The worker's listener's, as `of_gateway`."""
    return _listener(
        _File("listen_certificate", settings.listen_certificate),
        _File("listen_key", settings.listen_key),
        _File("listen_client_ca", settings.listen_client_ca),
    )


def to_workers(settings: GatewaySettings) -> Trust | None:
    """The way to workers; None: there is no TLS. Raises ConfigurationError that names the setting."""
    certificate = _File("workers_certificate", settings.workers_certificate)
    shown = _pair(certificate, _File("workers_key", settings.workers_key))
    authorities = _authorities(_File("workers_ca", settings.workers_ca))
    if authorities is None:
        for name, value in (certificate, ("workers_server_name", settings.workers_server_name)):
            if value:
                raise ConfigurationError(f"{name} is set, and workers_ca is not: without it there is no TLS")
        return None
    chain, key = shown or (None, None)
    credentials = grpc.ssl_channel_credentials(authorities, private_key=key, certificate_chain=chain)
    return Trust(credentials, settings.workers_server_name)


def add_port(server: grpc.aio.Server, address: str, listener: Listener | None) -> int:
    """Have the server listen, with TLS unless `address` is a Unix socket's. The port, where it has one.

    Raises RuntimeError where the address cannot be had.
    """
    if listener is None or address.startswith(_UNIX):
        return server.add_insecure_port(address)
    return server.add_secure_port(address, listener.credentials)


def open_channel(address: str, options: Sequence[tuple[str, int]], trust: Trust | None) -> grpc.aio.Channel:
    """A channel to a worker, with TLS unless `address` is a Unix socket's."""
    if trust is None or address.startswith(_UNIX):
        return grpc.aio.insecure_channel(address, options=options)
    named = [("grpc.ssl_target_name_override", trust.server_name)] if trust.server_name else []
    return grpc.aio.secure_channel(address, trust.credentials, options=[*options, *named])


class _File(NamedTuple):
    setting: str
    path: Path | None

    def read(self) -> bytes:
        assert self.path
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{self.setting} {self.path}: {error.strerror}") from None


def _listener(certificate: _File, key: _File, client_ca: _File) -> Listener | None:
    shown, authorities = _pair(certificate, key), _authorities(client_ca)
    if shown is None:
        if client_ca.path:
            missing = f"{client_ca.setting} is set, and {certificate.setting} is not"
            raise ConfigurationError(f"{missing}: without it there is no TLS")
        return None
    assert certificate.path and key.path
    chain, private = shown
    credentials = grpc.ssl_server_credentials(
        [(private, chain)], root_certificates=authorities, require_client_auth=authorities is not None
    )
    return Listener(certificate.path, key.path, client_ca.path, credentials)


def _pair(certificate: _File, key: _File) -> tuple[bytes, bytes] | None:
    """A certificate with its chain, and its key; None where neither is set."""
    if certificate.path is None and key.path is None:
        return None
    for each, other in ((certificate, key), (key, certificate)):
        if each.path is None:
            raise ConfigurationError(f"{other.setting} is set, and {each.setting} is not: they are a pair")
    assert certificate.path and key.path
    pair = certificate.read(), key.read()
    try:
        # With a password given, if none, nobody is asked for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate.path, key.path, password="")
    except ssl.SSLError as error:
        files = f"{certificate.setting} {certificate.path} and {key.setting} {key.path}"
        raise ConfigurationError(f"{files} are no certificate and its key: {error.reason}") from None
    return pair


def _authorities(file: _File) -> bytes | None:
    """The certificates of authorities; None where no file is set."""
    if file.path is None:
        return None
    authorities = file.read()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file.path)
    except ssl.SSLError as error:
        raise ConfigurationError(f"{file.setting} {file.path} has no certificates: {error.reason}") from None
    return authorities
