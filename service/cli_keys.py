"""`efficientsam3 keys`: the file of clients' keys."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli_common import settings_of

app = typer.Typer(help="Make and list the keys that clients come with.", no_args_is_help=True)

File = Annotated[
    Path | None, typer.Option(help="The file.", show_default="EFFICIENTSAM3_KEYS_FILE, or keys.toml")
]
Name = Annotated[str, typer.Argument(help="Whose it is: images and sessions belong to the name.")]


@app.command()
def new(
    name: Name,
    file: File = None,
    requests_per_s: Annotated[float | None, typer.Option(help="Requests per second.")] = None,
    burst: Annotated[int | None, typer.Option(help="Requests that may come together.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Requests under way at once.")] = None,
    sessions: Annotated[int | None, typer.Option(help="Tracking sessions at once.")] = None,
    variants: Annotated[
        list[str] | None, typer.Option("--variant", help="One that it may use; may be repeated.")
    ] = None,
) -> None:
    """Make a key and add its hash and its limits to the file. It is printed this once, and kept nowhere."""
    from service.gateway.keys import add

    path = _path(file)
    limits = {
        "requests_per_s": requests_per_s,
        "burst": burst,
        "concurrent": concurrent,
        "sessions": sessions,
        "variants": variants or None,
    }
    key = add(path, name, {limit: value for limit, value in limits.items() if value is not None})
    typer.echo(f"keys.{name} is in {path}. Its key, which is kept nowhere:", err=True)
    typer.echo(key)


@app.command("list")
def list_keys(file: File = None) -> None:
    """The names of the keys in the file, and their limits."""
    from rich.console import Console
    from rich.table import Table

    from service.gateway.keys import read

    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for column in ("name", "requests/s", "burst", "concurrent", "sessions", "variants"):
        table.add_column(column, no_wrap=True)
    for name, entry in read(_path(file)).items():
        numbers = (entry.requests_per_s, entry.burst, entry.concurrent, entry.sessions)
        shown = ("-" if number is None else f"{number:g}" for number in numbers)
        table.add_row(name, *shown, "all" if entry.variants is None else " ".join(entry.variants))
    Console().print(table)


def _path(file: Path | None) -> Path:
    from service.config import KeySettings

    return settings_of(KeySettings, keys_file=file).keys_file or Path("keys.toml")
