"""What the commands share: settings from options, and failures as one line."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar

_Settings = TypeVar("_Settings")


class CommandError(Exception):
    """A command cannot go on; the message is for the person who typed it."""

    def __init__(self, message: str, *, usage: bool = False) -> None:
        super().__init__(message)
        # The command line or the environment is wrong, not the world.
        self.usage = usage


def settings_of(kind: type[_Settings], **options: Any) -> _Settings:
    """Settings from the environment, with the options that were given (not None) over them.

    Raises CommandError that names the setting.
    """
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    try:
        return kind(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(step) for step in first["loc"])
        raise CommandError(f"setting {name}: {first['msg']}", usage=True) from error
    except SettingsError as error:
        raise CommandError(f"{error} (dictionaries and lists are JSON)", usage=True) from error


def need(module: str, extra: str) -> ModuleType:
    """Import `module` of ours, which needs packages of an extra.

    Raises CommandError that says what to install.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] in ("service", "model_store"):
            raise
        raise CommandError(_missing(missing, extra)) from error


def need_packages(packages: Iterable[str], extra: str) -> None:
    """Raises CommandError that says what to install unless the packages are there. Imports none of them."""
    for package in packages:
        if find_spec(package) is None:
            raise CommandError(_missing(package, extra))


def _missing(package: str, extra: str) -> str:
    return f"this needs {package}: pip install 'efficientsam3-service[{extra}]'"


def expected(error: Exception) -> str | None:
    """The line that tells of `error`, or None if nobody expected it."""
    from model_store.artifact import StoreError
    from model_store.registry import UnknownVariantError
    from service.config import ConfigurationError
    from service.errors import ServiceError

    match error:
        case ServiceError():
            return f"{error.detail} ({error.kind})"
        case CommandError() | ConfigurationError() | StoreError() | UnknownVariantError():
            return str(error.args[0])
        case OSError():
            # Also the gateway's ListenError.
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or error}"
        case _:
            return None


def wrong_usage(error: Exception) -> bool:
    """Whether the command line or the environment is wrong, not the world."""
    from service.config import ConfigurationError

    return isinstance(error, ConfigurationError) or (isinstance(error, CommandError) and error.usage)
