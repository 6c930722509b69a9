"""What a graph is before it is exported, and tensors that several graphs have in common."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from model_store.artifact import Tensor
from model_store.networks.sizes import Sizes
from model_store.networks.student import Student

# Largest absolute difference between a graph and its torch module that an export accepts.
_BOUND = 1e-4
MASK_BOUND = 5e-4

F32 = "float32"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph before it is exported."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    # The part of the student the graph must agree with, and what is exported in its place.
    reference: Callable[[Student], nn.Module]
    folded: Callable[[Student], nn.Module]
    bound: float = _BOUND


def interactive(sizes: Sizes, scale: int, rows: str) -> Tensor:
    side = scale * sizes.grid
    channels = {4: sizes.width // 8, 2: sizes.width // 4, 1: sizes.width}[scale]
    return Tensor(
        f"interactive_x{scale}",
        F32,
        (rows, channels, side, side),
        f"feature map of {side} x {side} cells over the whole picture",
    )


def image_row() -> Tensor:
    return Tensor("image", "int32", ("B",), "the row of the features that the object is in")


def pointers(sizes: Sizes, count: int | str) -> Tensor:
    return Tensor(
        "pointers", F32, ("B", count, sizes.width), "an object in one vector, for the frames that follow"
    )


def object_score() -> Tensor:
    return Tensor("object_score", F32, ("B", 1), "logit of the object being in the picture")


def conditioned(sizes: Sizes) -> Tensor:
    coarse = interactive(sizes, 1, "B")
    return replace(
        coarse, name="conditioned", description=f"{coarse.name} and the past: memory, or `no_memory`"
    )
