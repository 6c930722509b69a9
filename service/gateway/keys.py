"""The keys that clients come with: a file of names, hashes and limits, read again when it changes."""

import fcntl
import hashlib
import json
import logging
import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from service.config import ConfigurationError
from service.gateway.watched import WatchedFile

_LOG = logging.getLogger(__name__)

# A name becomes part of keys in Redis and of lines in the log.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
# By it a key that got lost is recognised as one.
_PREFIX = "es3_"
_RANDOM_BYTES = 32

Name = Annotated[str, Field(pattern=NAME)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


class Entry(BaseModel):
    """What the file says of one key. A limit that is left out is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    sha256: str = Field(repr=False)
    """Of the key, 64 hexadecimal digits in lower case."""
    requests_per_s: Annotated[float, Field(ge=0.001, le=1_000_000)] | None = None
    """Requests per second; each frame of a stream is one."""
    burst: Count | None = None
    """Requests that may come at once where there were none for a while; left out: those of one second."""
    concurrent: Count | None = None
    """Requests that may be under way at once."""
    sessions: Count | None = None
    """Tracking sessions that there may be at once."""
    variants: list[str] | None = None
    """Variants that may be asked; left out: all."""

    @field_validator("sha256")
    @classmethod
    def _is_a_hash(cls, value: str) -> str:
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            # Perhaps the key itself stands here: it is not repeated.
            raise PydanticCustomError("sha256", "it is not 64 hexadecimal digits in lower case")
        return value

    @model_validator(mode="after")
    def _has_a_rate(self) -> "Entry":
        if self.burst is not None and self.requests_per_s is None:
            raise PydanticCustomError("burst", "burst needs requests_per_s")
        return self


class Key(Entry):
    """One key. Whatever belongs to it belongs to its name: another key of that name has it, too."""

    name: str


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keys: dict[Name, Entry] = {}


class Keys:
    """The keys of a file. What it says holds from the next request on; while it is broken, what it said."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError as `read` does."""
        self._file = WatchedFile(path, _by_hash, "keys", lambda keys: f"{len(keys)} keys", _LOG)

    def find(self, key: str) -> Key | None:
        """Whose key it is; None: nobody's.

        How long this takes may tell how much of a hash agrees with one that is known, which helps nobody: a
        key to a hash cannot be found, and a hash opens nothing.
        """
        return self._file.look().get(hashed(key))


def hashed(key: str) -> str:
    """What is kept of a key.

    Slow and salted hashes protect what people think up. Of 256 random bits nobody tries all, however fast
    each try is, and no two keys are alike.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def add(path: Path, name: str, limits: Mapping[str, object]) -> str:
    """Make a key with these fields of `Entry`, and add it to the file, which is made where there is none.

    Raises ConfigurationError where the file is broken or has the name already, or the limits cannot be.
    """
    key = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    fields = {"sha256": hashed(key), **limits}
    # What JSON makes of numbers, texts and lists of texts is TOML, too.
    lines = [
        f"[keys.{json.dumps(name)}]",
        *(f"{each} = {json.dumps(value)}" for each, value in fields.items()),
    ]
    with os.fdopen(
        os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "r+", encoding="utf-8"
    ) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = _text(path)
        if name in _parse(text, path):
            raise ConfigurationError(f"keys_file {path} has keys.{name} already: take its entry out first")
        entry = ("\n" if text else "") + "\n".join(lines) + "\n"
        _parse(text + entry, path)
        file.write(entry)
    return key


def read(path: Path) -> dict[str, Entry]:
    """The entries of the file by their names.

    Raises ConfigurationError, which names the file and the entry, and repeats nothing that may be a key.
    """
    return _parse(_text(path), path)


def _parse(text: str, path: Path) -> dict[str, Entry]:
    try:
        return _File.model_validate(tomllib.loads(text)).keys
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"keys_file {path} is no TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        entry = ".".join(str(step) for step in first["loc"] if step != "[key]")
        raise ConfigurationError(f"keys_file {path}, {entry}: {first['msg']}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"keys_file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"keys_file {path} is no text in UTF-8") from None


def _by_hash(path: Path) -> dict[str, Key]:
    """What `read` gives. Raises ConfigurationError where two entries have the same key, too."""
    found: dict[str, Key] = {}
    for name, entry in read(path).items():
        if other := found.get(entry.sha256):
            raise ConfigurationError(f"keys_file {path}, keys.{name}: it is the key of keys.{other.name}")
        found[entry.sha256] = Key(name=name, **dict(entry))
    return found
