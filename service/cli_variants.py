"""`efficientsam3 variants`: what can be served, and how it comes into the store."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli_common import CommandError, need, need_packages, settings_of

if TYPE_CHECKING:
    from model_store.artifact import Manifest

app = typer.Typer(help="List variants, and bring them into the store.", no_args_is_help=True)

Store = Annotated[Path | None, typer.Option(help="Folder of artefacts.", show_default="the user's cache")]
Name = Annotated[str, typer.Argument(help="The variant's name.")]
WithText = Annotated[
    bool | None,
    typer.Option("--with-text/--without-text", help="The text encoder.", show_default="all but SAM3's"),
]


def manifest_of(store: Path, variant: str) -> "Manifest":
    """The manifest of the variant's artefact. Raises CommandError that says how to get one."""
    from model_store import artifact, registry

    released = registry.find(variant).released
    folder = artifact.folder_of(store, variant)
    if folder is None:
        way = f"pull {variant}" if released else f"import {variant} --checkpoint FILE"
        raise CommandError(
            f"there is no artefact of {variant} in {store}. Make one: efficientsam3 variants {way}, "
            f"or, for a test, efficientsam3 variants synthesize {variant}"
        )
    return artifact.read(folder)


def artefact_of(variant: str, store: Path | None) -> Path:
    """The folder of the variant's artefact, in the store or the package. Raises as `manifest_of`."""
    from model_store import artifact
    from service.config import StoreSettings

    place = settings_of(StoreSettings, store=store).store
    manifest_of(place, variant)
    folder = artifact.folder_of(place, variant)
    assert folder is not None, "it has a manifest"
    return folder


@app.command("list")
def list_variants(store: Store = None) -> None:
    """Every variant there is, and whether it is in the store."""
    from rich.console import Console
    from rich.table import Table

    from model_store import artifact, registry
    from service.config import StoreSettings

    folder = settings_of(StoreSettings, store=store).store
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for column in ("name", "image encoder", "text encoder", "tokens", "released", "here"):
        table.add_column(column, no_wrap=True)
    for variant in registry.variants().values():
        place = artifact.folder_of(folder, variant.name)
        table.add_row(
            variant.name,
            variant.image_encoder,
            variant.text_encoder,
            str(variant.context_length),
            "yes" if variant.released else "no",
            "-" if place is None else "in store" if place.parent == folder else "in the package",
        )
    Console().print(table)


@app.command()
def show(name: Name, store: Store = None) -> None:
    """What is known of one variant, and of its artefact if there is one."""
    from dataclasses import asdict

    from rich.console import Console

    from model_store import artifact, registry
    from service.config import StoreSettings

    folder = settings_of(StoreSettings, store=store).store
    console = Console(highlight=False)
    _print_facts(console, asdict(registry.find(name)))
    place = artifact.folder_of(folder, name)
    if place is not None:
        manifest = asdict(artifact.read(place))
        graphs = manifest.pop("graphs")
        console.print(f"\nArtefact {place}")
        _print_facts(console, manifest)
        for graph, facts in graphs.items():
            console.print(f"  graph {graph}: {facts['bytes'] / 1e6:.1f} MB, {facts['file']}")


def _print_facts(console: Any, facts: dict[str, Any]) -> None:
    for key, value in facts.items():
        if value not in ("", (), None):
            shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            console.print(f"  {key}: {shown}", markup=False)


@app.command("import")
def import_variant(
    name: Name,
    checkpoint: Annotated[Path, typer.Option(help="A released file: .pt, .pth or .safetensors.")],
    fill_from: Annotated[
        Path | None, typer.Option(help="A second file, for the parts that the first lacks.")
    ] = None,
    with_text: WithText = None,
    context: Annotated[
        int | None, typer.Option(min=3, max=77, help="Tokens per text.", show_default="the variant's")
    ] = None,
    store: Store = None,
) -> None:
    """Turn a released checkpoint into an artefact."""
    from service.config import StoreSettings

    folder = settings_of(StoreSettings, store=store).store
    for file in filter(None, (checkpoint, fill_from)):
        if not file.is_file():
            raise CommandError(f"{file} is no file")
    importing = need("model_store.importing", "import")
    with _progress() as report:
        made = importing.import_checkpoint(
            name, checkpoint, folder, report, fill_from=fill_from, context=context, texts=with_text
        )
    _tell(name, made)


def _tell(name: str, made: Path) -> None:
    """What was made: what came from where, what can be asked, and what cannot and why."""
    from model_store import artifact

    manifest = artifact.read(made)
    if filled := manifest.audit.get("filled"):
        parts = ", ".join(f"{part} ({keys} keys)" for part, keys in filled.items())
        typer.echo(f"From {manifest.source['filled_from']['file']}: {parts}.")
        typer.echo(f"From {manifest.source['file']}: all else, {manifest.audit['used']} keys.")
    typer.echo(f"{name} is in {made}. It serves {', '.join(manifest.prompts)}.")
    for why in dict.fromkeys(manifest.unserved.values()):
        kinds = [kind for kind, each in manifest.unserved.items() if each == why]
        typer.echo(f"Not served: {', '.join(kinds)}: {why}.")


@app.command()
def pull(
    name: Name,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the repository.", show_default="main")
    ] = None,
    with_text: WithText = None,
    ready: Annotated[
        str | None, typer.Option("--from", help="Address of a ready artefact's folder, http:// or https://.")
    ] = None,
    digest: Annotated[
        str | None, typer.Option(help="With --from: sha256 of its manifest.json, of which the rest follows.")
    ] = None,
    store: Store = None,
) -> None:
    """Fetch a variant's released files from the Hugging Face hub, and turn them into an artefact.

    With --from, fetch an artefact that was made elsewhere, unless the store has it; that needs no torch.
    HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE mean what they mean to every tool of the hub.
    """
    from service.config import StoreSettings

    folder = settings_of(StoreSettings, store=store).store
    if (ready is None) != (digest is None):
        raise CommandError("--from and --digest go together", usage=True)
    if ready is None or digest is None:
        _pull_released(name, revision, with_text, folder)
    elif revision is not None or with_text is not None:
        raise CommandError("--from takes an artefact as it is, without --revision or --with-text", usage=True)
    else:
        from model_store.ready import take

        with _progress() as report:
            made = take(name, ready, digest, folder, report)
        _tell(name, made)


def _pull_released(name: str, revision: str | None, with_text: bool | None, folder: Path) -> None:
    from model_store import registry

    pulling = need("model_store.pull", "import")
    variant = pulling.pullable(name)
    # What only the import needs is missed before the transfer.
    need_packages(("torch", "transformers", "timm", "onnx", "onnxscript"), "import")
    with _progress() as report:
        pulled = [pulling.pull_file(each, revision, report) for each in registry.files_of(variant)]
        importing = need("model_store.importing", "import")
        made = importing.import_checkpoint(
            name,
            pulled[0].path,
            folder,
            report,
            fill_from=pulled[1].path if len(pulled) > 1 else None,
            origins={each.path: each.origin() for each in pulled},
            texts=with_text,
        )
    typer.echo(f"From {pulled[0].repository} at {pulled[0].revision}.")
    _tell(name, made)


@app.command()
def synthesize(
    name: Name,
    store: Store = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="Keep the artefact there is.")] = False,
) -> None:
    """Make an artefact from synthetic weights: true cost, meaningless answers. For load tests."""
    from model_store import artifact
    from service.config import StoreSettings

    folder = settings_of(StoreSettings, store=store).store
    if if_missing and (folder / name / artifact.MANIFEST).is_file():
        typer.echo(f"{name} is in {folder / name} already.")
        return
    importing = need("model_store.importing", "import")
    with _progress() as report:
        made = importing.synthesize(name, folder, report)
    typer.echo(f"{name} is in {made}, with synthetic weights: what it finds means nothing.")


@app.command()
def selfcheck(
    layouts: Annotated[Path, typer.Option(help="Folder of checkpoint layouts, <name>.json.gz.")],
    names: Annotated[list[str] | None, typer.Argument(help="Variants.", show_default="all")] = None,
    with_text: Annotated[bool, typer.Option("--with-text", help="Also SAM3's text encoders.")] = False,
) -> None:
    """Make each variant from a checkpoint of its released layout, serve it, ask it, and print a row on it."""
    from model_store import registry
    from model_store.artifact import StoreError
    from service.selfcheck import COLUMNS, check

    chosen = [registry.find(name) for name in names] if names else registry.distilled()
    typer.echo(f"| {' | '.join(COLUMNS)} |")
    typer.echo(f"|{'---|' * len(COLUMNS)}")
    failed = 0
    with _progress() as report:
        report("variants", 0.0)
        for done, variant in enumerate(chosen, start=1):
            try:
                cells = check(variant, layouts, with_text=with_text)
            except (StoreError, CommandError) as error:
                failed += 1
                cells = [variant.name, f"FAILED: {error}"]
            typer.echo(f"| {' | '.join(cells)} |")
            sys.stdout.flush()
            report("variants", done / len(chosen))
    if failed:
        raise CommandError(f"{failed} of {len(chosen)} variants failed")


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar per stage on standard error; the yielded function takes a stage's name and its fraction done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=1.0)
            progress.update(tasks[stage], completed=fraction)

        yield report
