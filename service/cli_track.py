"""`efficientsam3 track`: follow objects through a video on a running server, and draw them."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service import cli_prompts
from service.cli_common import CommandError, need
from service.cli_prompts import Prompt
from service.cli_segment import Boxes, Masks, NotPoints, Points, Server, Texts, Timeout, Variant

if TYPE_CHECKING:
    from service.client import Session
    from service.video import Video

File = Annotated[Path, typer.Argument(help="A video file.", metavar="VIDEO")]
Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the video with its masks, an .mp4.")]
ConfirmFrames = Annotated[
    int,
    typer.Option(metavar="N", help="Show a text's instance once N frames found it, 0..60; 0 or 1: at once."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's answers, a line per frame.")]


def track(
    video: File,
    text: Texts = None,
    point: Points = None,
    not_point: NotPoints = None,
    box: Boxes = None,
    mask: Masks = None,
    variant: Variant = "",
    out: Out = None,
    as_json: AsJson = False,
    confirm_frames: ConfirmFrames = 0,
    server: Server = "http://127.0.0.1:8080",
    timeout_s: Timeout = 60.0,
) -> None:
    """Follow objects through a video on a running server.

    A text follows every instance of a concept, those that come later too. The other options show objects on
    the first frame: all points, one box and one mask show one object; several boxes, or several masks, an
    object each. Coordinates are pixels from the top left corner.
    """
    asked = cli_prompts.concepts(text or [], [], [])
    asked += cli_prompts.objects(point or [], not_point or [], box or [], mask or [])
    if not asked:
        raise CommandError("nothing is followed: give --text, --point, --box or --mask", usage=True)
    if not (out or as_json):
        raise CommandError("nowhere to put the answer: give --out or --json", usage=True)
    videos = need("service.video", "cpu")

    from service.client import Client

    try:
        with videos.Video(video) as frames, Client(server, timeout_s=timeout_s) as client:
            session = client.open_session(
                variant=variant,
                frames_total=frames.frames,
                mask_format="png" if out else "rle",
                options={"confirm_frames": confirm_frames},
            )
            _follow(frames, session, asked, out, as_json)
            session.delete()
    except videos.VideoError as error:
        raise CommandError(str(error)) from error


def _follow(
    frames: "Video", session: "Session", asked: Sequence[Prompt], out: Path | None, as_json: bool
) -> None:
    from rich.console import Console
    from rich.progress import track as with_bar

    from service.overlay import draw
    from service.video import Writer, as_png

    writer: Writer | None = None
    with ExitStack() as stack:
        shown = with_bar(frames, "frames", total=frames.frames, console=Console(stderr=True))
        for index, picture in enumerate(shown):
            image = as_png(picture)
            answer = session.add(image, asked if not index else [])
            if as_json:
                typer.echo(json.dumps(answer.raw))
            if out:
                if writer is None:
                    writer = stack.enter_context(Writer(out, frames.rate, picture.size))
                writer.add(draw(image, answer, asked if not index else ()))
