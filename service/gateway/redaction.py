"""What of a request's address may be logged: whoever has a session's id may use the session."""

import hashlib
import re

from service.prompts import SESSION_ID

_DIGITS = 12
# What stands in the place of an id, or anything that has an id's form, or a key's.
_PRIVATE = re.compile(rf"(?<=^/v1/sessions/)[^/]+|{SESSION_ID}|es3_[\w-]{{16,}}")


def session_hash(id: str) -> str:
    """The name of a session in logs: the first 12 hexadecimal digits of the id's SHA-256."""
    return hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]


def loggable(path: str) -> str:
    """The path of a request with hashes in the place of sessions' ids, and of what looks like a key."""
    return _PRIVATE.sub(lambda found: session_hash(found[0]), path)
