"""The five graphs of a student: their modules, and what goes in and out of them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from model_store.artifact import Tensor
from model_store.networks.fold import FoldedMaskHead, FoldedNeck
from model_store.networks.sizes import Sizes
from model_store.networks.student import Student

# Largest absolute difference between a graph and its torch module that an export accepts.
_BOUND = 1e-4
_MASK_BOUND = 5e-4

_F32 = "float32"


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


def _features(sizes: Sizes, rows: str) -> dict[int, Tensor]:
    return {
        scale: Tensor(
            f"features_x{scale}",
            _F32,
            (rows, sizes.width, scale * sizes.grid, scale * sizes.grid),
            f"feature map of {scale * sizes.grid} x {scale * sizes.grid} cells over the whole picture",
        )
        for scale in (4, 2, 1)
    }


def _prompt(sizes: Sizes) -> tuple[Tensor, Tensor]:
    return (
        Tensor("prompt", _F32, ("B", "P", sizes.width), "tokens of the whole prompt: text, exemplars, class"),
        Tensor("prompt_valid", "bool", ("B", "P"), "false where the prompt token is padding"),
    )


def _text(sizes: Sizes) -> tuple[Tensor, Tensor]:
    context = sizes.text.context
    return (
        Tensor("text_features", _F32, ("B", context, sizes.width), "one feature per token"),
        Tensor("text_valid", "bool", ("B", context), "false where the token is padding (id 0)"),
    )


def _embedding(sizes: Sizes) -> Tensor:
    side = sizes.embedding_side
    return Tensor(
        "embedding",
        _F32,
        ("N", sizes.embedding_channels, side, side),
        "image embedding, over the whole picture",
    )


def _image_encoder(sizes: Sizes) -> GraphSpec:
    side = sizes.image_size
    pixels = Tensor(
        "pixels", "uint8", ("N", side, side, 3), "RGB levels 0..255 of the resized picture; not normalised"
    )
    image = lambda student: student.image  # noqa: E731
    return GraphSpec("image_encoder", (pixels,), (_embedding(sizes),), image, image)


def _concept_features(sizes: Sizes) -> GraphSpec:
    return GraphSpec(
        "concept_features",
        (_embedding(sizes),),
        tuple(_features(sizes, "N").values()),
        lambda student: student.neck,
        lambda student: FoldedNeck(student.neck),
    )


def _text_encoder(sizes: Sizes) -> GraphSpec:
    tokens = Tensor(
        "tokens",
        "int32",
        ("B", sizes.text.context),
        "ids of the start token, the text, the end token, then 0",
    )
    text = lambda student: student.text  # noqa: E731
    return GraphSpec("text_encoder", (tokens,), _text(sizes), text, text)


def _concept_decoder(sizes: Sizes) -> GraphSpec:
    inputs = (
        _features(sizes, "B")[1],
        *_text(sizes),
        Tensor("exemplar_boxes", _F32, ("B", "K", 4), "xyxy, 0..1 of the picture's width and height; K >= 1"),
        Tensor("exemplar_labels", "int32", ("B", "K"), "1 positive, 0 negative, -10 padding"),
    )
    queries = sizes.queries
    outputs = (
        Tensor("logits", _F32, ("B", queries), "score = sigmoid(logits) * sigmoid(presence)"),
        Tensor("presence", _F32, ("B", 1), "logit of the concept being in the picture at all"),
        Tensor("boxes", _F32, ("B", queries, 4), "xyxy, 0..1 of the picture's width and height; not clipped"),
        Tensor("queries", _F32, ("B", queries, sizes.width), "one feature per query"),
        Tensor("encoded", _F32, ("B", sizes.width, sizes.grid, sizes.grid), "features_x1 after the prompt"),
        *_prompt(sizes),
    )
    detector = lambda student: student.detector  # noqa: E731
    return GraphSpec("concept_decoder", inputs, outputs, detector, detector)


def _concept_masks(sizes: Sizes) -> GraphSpec:
    features = _features(sizes, "B")
    inputs = (
        _concept_decoder(sizes).outputs[4],
        *_prompt(sizes),
        features[2],
        features[4],
        Tensor("queries", _F32, ("B", "Q", sizes.width), "the queries whose masks are wanted"),
    )
    side = sizes.mask_size
    logits = Tensor(
        "mask_logits",
        _F32,
        ("B", "Q", side, side),
        "foreground where > 0 after a bilinear resize to the picture (half-pixel centres, no antialias)",
    )
    return GraphSpec(
        "concept_masks",
        inputs,
        (logits,),
        lambda student: student.masks,
        lambda student: FoldedMaskHead(student.masks),
        _MASK_BOUND,
    )


def graphs(sizes: Sizes) -> tuple[GraphSpec, ...]:
    """The graphs of a student of these sizes, each after those whose results it takes."""
    builders = (_image_encoder, _concept_features, _text_encoder, _concept_decoder, _concept_masks)
    return tuple(build(sizes) for build in builders)
