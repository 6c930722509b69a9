"""Reads JSON that a stranger may have written. Standard library only.

Everything that JSON readers disagree on is refused, and so is what a person's terminal or a later step could
stumble over: repeated names, NaN and infinities, huge numbers, deep nesting, control characters.
"""

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 32
# The largest whole number that every JSON reader keeps exactly.
MAX_INTEGER = 2**53


def parse(content: bytes) -> Any:
    """Return the value of the JSON text. Raises ValueError that says in one line what is wrong with it."""
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_members, parse_constant=_constant)
        _check(value, 1)
    except RecursionError:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {repeated!r:.60} is there more than once in one object")
    return members


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number that JSON allows")


def _check(value: Any, depth: int) -> None:
    """Raise ValueError for a value that is too deep, too large, or holds characters that are not shown."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    match value:
        case str() if not _is_text(value):
            raise ValueError(f"{value!a:.60} holds characters that cannot be shown")
        case bool() | None | str():
            return
        case int() if abs(value) > MAX_INTEGER:
            raise ValueError(f"a whole number is larger than {MAX_INTEGER}")
        case float() if not math.isfinite(value):
            raise ValueError("a number is too large for 64 bits")
        case list():
            for each in value:
                _check(each, depth + 1)
        case dict():
            for name, each in value.items():
                _check(name, depth + 1)
                _check(each, depth + 1)


def _is_text(value: str) -> bool:
    """Whether a terminal shows it as it is, without control characters and half characters."""
    return not any(
        (each < " " and each not in "\n\t") or "\x7f" <= each <= "\x9f" or "\ud800" <= each <= "\udfff"
        for each in value
    )
