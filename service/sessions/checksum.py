"""Seals values with a checksum, so that bytes that were damaged in a store are found and never used."""

import hashlib

_VERSION = b"\x01"
_DIGEST_BYTES = 12
_SEAL_BYTES = len(_VERSION) + _DIGEST_BYTES


def seal(name: str, data: bytes) -> bytes:
    """Return the data behind a version byte and a checksum of the data and `name`.

    `name` says what the data is, so that a value that was moved to another place is found as well.
    """
    return _VERSION + _digest(name, data) + data


def unseal(name: str, sealed: bytes) -> bytes | None:
    """Return what was sealed under `name`, or None if the bytes are not what was sealed."""
    digest, data = sealed[len(_VERSION) : _SEAL_BYTES], sealed[_SEAL_BYTES:]
    if sealed[: len(_VERSION)] != _VERSION or digest != _digest(name, data):
        return None
    return data


def _digest(name: str, data: bytes) -> bytes:
    encoded = name.encode()
    # The length keeps the name and the data apart.
    digest = hashlib.blake2b(len(encoded).to_bytes(4, "big") + encoded, digest_size=_DIGEST_BYTES)
    digest.update(data)
    return digest.digest()
