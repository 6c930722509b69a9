"""Tracking sessions measured: where a frame's time goes, and how much of it is the session store's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING

from service.cli_common import CommandError, need

if TYPE_CHECKING:
    from service.pb.efficientsam3.v1 import tracking_pb2 as pb

# Frames before the first that counts: then a session keeps as much as it ever will.
WARMING = 20
_DEADLINE_S = 120.0
# An object's box: its sides and the steps to the next, as shares of the frame's; so many beside each other.
_SIDE, _STEP, _COLUMNS = 0.15, 0.19, 5
_OTHERS = ("store", "total")


@dataclass(frozen=True, slots=True)
class Clip:
    """A video's frames as files, and their width and height in pixels."""

    pictures: Sequence[bytes]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """The frames of one session that count, one after another."""

    # Milliseconds by stage, of every frame.
    timings_ms: Sequence[Mapping[str, float]]
    # Of what is kept of the objects after the last.
    memory_bytes: int

    def median_ms(self, stage: str) -> float:
        """Of one stage; 0 for one that never ran."""
        return median(each.get(stage, 0.0) for each in self.timings_ms)

    @property
    def store_shares(self) -> list[float]:
        """The store's of each frame's time, 0..1."""
        return [each["store"] / each["total"] for each in self.timings_ms]

    @property
    def bare_shares(self) -> list[float]:
        """The store's of each frame's time, 0..1, if a frame were written while the next one's image encoder
        runs: what is longer than that, of a time that is shorter by the rest."""
        shares = []
        for each, following in zip(self.timings_ms, self.timings_ms[1:], strict=False):
            bare = max(0.0, each["store"] - following["image_encoder"])
            shares.append(bare / (each["total"] - each["store"] + bare))
        return shares


def read(path: Path) -> Clip:
    """A video file. Raises CommandError for what is none."""
    videos = need("service.video", "cpu")
    try:
        with videos.Video(path) as video:
            frames = list(video)
    except videos.VideoError as error:
        raise CommandError(str(error)) from error
    return Clip([videos.as_png(frame) for frame in frames], frames[0].size)


def measure(
    address: str, clip: Clip, objects: int, frames: int, shown: Callable[[range], Iterable[int]]
) -> Measured:
    """Follow so many objects through so many frames that count, on the worker at `address`.

    `shown` passes frames' numbers on, and shows how far it is. Raises ServiceError.
    """
    import grpc

    from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
    from service.pb.efficientsam3.v1 import tracking_pb2 as pb
    from service.pb.efficientsam3.v1.tracking_pb2_grpc import TrackingStub
    from service.rpc import from_rpc_error

    timings = []
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub: TrackingStub = TrackingStub(channel)
        try:
            session = stub.OpenSession(pb.OpenSessionRequest(), timeout=_DEADLINE_S).session
            for index in shown(range(WARMING + frames)):
                image = segmentation_pb.Image(data=clip.pictures[index % len(clip.pictures)])
                prompts = [] if index else _boxes(objects, *clip.size)
                frame = pb.Frame(frame=index, image=image, prompts=prompts)
                answer = stub.AddFrame(pb.AddFrameRequest(session=session, frame=frame), timeout=_DEADLINE_S)
                timings.append(dict(answer.timings_ms))
            asked = pb.SessionRequest(session=session)
            kept = stub.GetSession(asked, timeout=_DEADLINE_S).memory_bytes
            stub.DeleteSession(asked, timeout=_DEADLINE_S)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
    return Measured(timings[WARMING:], kept)


def rows(measured: Sequence[Measured]) -> list[list[str]]:
    """A line for each stage and ratio: its name, and a value of each of `measured`."""
    ran = {stage for each in measured for stage in each.timings_ms[0] if each.median_ms(stage) >= 0.01}
    slowest = sorted(ran - {*_OTHERS}, key=measured[-1].median_ms, reverse=True)
    return [
        *([f"{stage}, ms", *(f"{each.median_ms(stage):.2f}" for each in measured)] for stage in slowest),
        *([f"{stage}, ms", *(f"{each.median_ms(stage):.2f}" for each in measured)] for stage in _OTHERS),
        ["store, of the frame", *(_share(each.store_shares) for each in measured)],
        ["  beside the next image encoder", *(_share(each.bare_shares) for each in measured)],
        ["kept of the objects, KB", *(f"{each.memory_bytes / 1000:.1f}" for each in measured)],
    ]


def _share(shares: Sequence[float]) -> str:
    return f"{median(shares):.1%} (mean {mean(shares):.1%})"


def _boxes(count: int, width: int, height: int) -> "list[pb.TrackPrompt]":
    from service.pb.efficientsam3.v1 import segmentation_pb2 as segmentation_pb
    from service.pb.efficientsam3.v1 import tracking_pb2 as pb

    prompts = []
    for index in range(count):
        # Rows beyond the last begin again from the first, in between.
        x, y = _STEP * (index % _COLUMNS), _STEP * (index // _COLUMNS) % (1 - _SIDE)
        corners = {"x0": x * width, "y0": y * height, "x1": (x + _SIDE) * width, "y1": (y + _SIDE) * height}
        prompts.append(pb.TrackPrompt(box=segmentation_pb.Box(**corners)))
    return prompts
