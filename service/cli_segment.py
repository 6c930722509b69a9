"""`efficientsam3 segment`: ask a running server what is in a picture, and draw its answer."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service import cli_prompts
from service.cli_common import CommandError
from service.cli_prompts import Prompt

if TYPE_CHECKING:
    from service.client import Answer


class MaskFormat(StrEnum):
    """How masks are written in the answer's JSON."""

    RLE = "rle"
    PNG = "png"
    POLYGON = "polygon"
    NONE = "none"


Picture = Annotated[Path, typer.Argument(help="An image file.", metavar="PICTURE")]
Texts = Annotated[list[str] | None, typer.Option(metavar="PHRASE", help="What to find, a noun phrase.")]
Exemplars = Annotated[
    list[str] | None, typer.Option(metavar="REGION", help="An instance of it: X,Y or X0,Y0,X1,Y1.")
]
NotExemplars = Annotated[
    list[str] | None, typer.Option(metavar="REGION", help="Something that is not an instance.")
]
Points = Annotated[list[str] | None, typer.Option(metavar="X,Y", help="A click on the object.")]
NotPoints = Annotated[list[str] | None, typer.Option(metavar="X,Y", help="A click beside the object.")]
Boxes = Annotated[list[str] | None, typer.Option(metavar="X0,Y0,X1,Y1", help="A box around an object.")]
Masks = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="A rough mask: a PNG, the object above 127.")
]
PromptsFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Instead of these: the API's JSON list; - for stdin.")
]
Multimask = Annotated[bool, typer.Option("--multimask", help="All the candidate masks of an object.")]
MaxSegments = Annotated[int | None, typer.Option(metavar="N", min=1, help="Most segments per prompt.")]
Threshold = Annotated[
    float | None,
    typer.Option(metavar="SCORE", help="Least score. Default: the variant's; objects: none."),
]
Variant = Annotated[
    str, typer.Option(metavar="NAME", help="Variant to ask. Default: the server's.", show_default=False)
]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw prompts and answer, into this picture file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answer instead of a table.")]
Format = Annotated[
    MaskFormat | None, typer.Option(metavar="FORMAT", help="Masks in the JSON: rle, png, polygon or none.")
]
Server = Annotated[str, typer.Option(metavar="URL", help="The server.")]
Timeout = Annotated[float, typer.Option(metavar="S", min=0.001, max=600, help="Seconds to wait.")]


def segment(
    picture: Picture,
    text: Texts = None,
    exemplar: Exemplars = None,
    not_exemplar: NotExemplars = None,
    point: Points = None,
    not_point: NotPoints = None,
    box: Boxes = None,
    mask: Masks = None,
    prompts: PromptsFile = None,
    multimask: Multimask = False,
    max_segments: MaxSegments = None,
    threshold: Threshold = None,
    variant: Variant = "",
    out: Out = None,
    as_json: AsJson = False,
    mask_format: Format = None,
    server: Server = "http://127.0.0.1:8080",
    timeout_s: Timeout = 60.0,
) -> None:
    """Ask a running server what is in a picture.

    A text asks for every instance of a concept; exemplars belong to the one text, or make a concept of
    their own. All points, one box and one mask ask for one object; several boxes, or several masks, for an
    object each. Every one of these options may be repeated.

    Coordinates are pixels from the top left corner, such as --box 425,300,700,500.
    """
    asked = cli_prompts.concepts(text or [], exemplar or [], not_exemplar or [])
    asked += cli_prompts.objects(point or [], not_point or [], box or [], mask or [])
    if prompts is not None:
        if asked:
            raise CommandError("--prompts is given alone: put every prompt into it", usage=True)
        asked = cli_prompts.read(prompts)
    _check(asked, multimask, threshold)
    wanted = _mask_format(mask_format, out)
    image = picture.read_bytes()

    from service.client import Client

    with Client(server, timeout_s=timeout_s, patience_s=0) as client:
        answer = client.segment(
            image,
            asked if threshold is None else [{"score_threshold": threshold, **each} for each in asked],
            variant=variant,
            mask_format=wanted,
            max_segments=max_segments,
            multimask=multimask,
        )
    if out:
        _draw(image, answer, asked, out)
    if as_json:
        import json

        typer.echo(json.dumps(answer.raw, indent=2))
    else:
        _print_answer(answer, asked, out)


def _check(asked: Sequence[Prompt], multimask: bool, threshold: float | None) -> None:
    if not asked:
        message = "nothing is asked for: give --text, --exemplar, --point, --box, --mask or --prompts"
        raise CommandError(message, usage=True)
    if multimask and all(each.get("text") or each.get("exemplars") for each in asked):
        raise CommandError("--multimask is for an object: give --point, --box or --mask", usage=True)
    # Not by typer's bounds: they let NaN pass.
    if threshold is not None and not 0 <= threshold <= 1:
        raise CommandError(f"--threshold {threshold:g}: a score is expected, 0 to 1", usage=True)


def _mask_format(asked: MaskFormat | None, out: Path | None) -> str:
    """The format to ask the server for. Raises CommandError where `out` could not be drawn or written."""
    if out is None:
        return asked or MaskFormat.RLE
    if asked not in (None, MaskFormat.PNG, MaskFormat.NONE):
        raise CommandError(f"--mask-format {asked}: with --out, png or none is expected", usage=True)
    from PIL import Image

    known = Image.registered_extensions()
    if known.get(out.suffix.lower()) not in Image.SAVE:
        raise CommandError(
            f"--out {out}: no picture format is known by {out.suffix or 'no ending'}", usage=True
        )
    if not out.parent.is_dir():
        raise CommandError(f"--out {out}: there is no folder {out.parent}", usage=True)
    return asked or MaskFormat.PNG


def _draw(image: bytes, answer: "Answer", asked: Sequence[Prompt], out: Path) -> None:
    from service.overlay import draw

    try:
        draw(image, answer, asked).save(out)
    except ValueError as error:
        # What a format cannot hold: WebP, for one, ends at 16,383 pixels.
        raise CommandError(f"--out {out}: {error}") from error


def _print_answer(answer: "Answer", asked: Sequence[Prompt], out: Path | None) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("prompt", "score", "box (x0, y0, x1, y1)", "pixels", box=None)
    for prompt, segments in zip(asked, answer.results, strict=True):
        name = escape(cli_prompts.in_words(prompt))
        for each in segments:
            box = ", ".join(f"{value:.1f}" for value in each.box_xyxy)
            table.add_row(name, f"{each.score:.3f}", box, f"{each.area_px}" if each.mask else "-")
        if not segments:
            table.add_row(name, "-", "nothing above the threshold", "-")
    console = Console()
    console.print(table)
    total_ms = answer.timings_ms.get("total", 0)
    console.print(f"{answer.variant}: {total_ms:.0f} ms", highlight=False, markup=False)
    if out:
        console.print(f"Drawn: {out}", highlight=False, markup=False)
