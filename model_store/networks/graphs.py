"""The graphs of a student: their modules, and what goes in and out of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from model_store import sample
from model_store.artifact import Tensor
from model_store.networks.fold import FoldedInteractiveFeatures, FoldedMaskHead, FoldedNeck
from model_store.networks.objects import InteractiveFeatures
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
    return GraphSpec(
        "image_encoder",
        (pixels,),
        (_embedding(sizes),),
        lambda student: student.image,
        lambda student: student.image.fused(),
    )


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


class _VisualPrompt(nn.Module):
    """The text encoder's answer to the text "visual", without the text encoder."""

    features: torch.Tensor
    valid: torch.Tensor

    def __init__(self, student: Student) -> None:
        super().__init__()
        text = student.sizes.text
        tokens = torch.from_numpy(sample.tokens(text.context, text.vocabulary, sample.VISUAL))
        with torch.inference_mode():
            features, valid = student.text(tokens)
        self.register_buffer("features", features)
        self.register_buffer("valid", valid)

    def forward(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.features.clone(), self.valid.clone()


def _visual_prompt(sizes: Sizes) -> GraphSpec:
    features, valid = _text(sizes)
    outputs = (
        replace(features, shape=(1, *features.shape[1:])),
        replace(valid, shape=(1, *valid.shape[1:])),
    )
    return GraphSpec("visual_prompt", (), outputs, _VisualPrompt, _VisualPrompt)


def _exemplars() -> tuple[Tensor, ...]:
    labels = "1 positive, 0 negative, -10 padding"
    unit = "0..1 of the picture's width and height"
    return (
        Tensor("exemplar_points", _F32, ("B", "J", 2), f"x and y, {unit}; J >= 1"),
        Tensor("exemplar_point_labels", "int32", ("B", "J"), labels),
        Tensor("exemplar_boxes", _F32, ("B", "K", 4), f"xyxy, {unit}; K >= 1"),
        Tensor("exemplar_box_labels", "int32", ("B", "K"), labels),
    )


def _concept_decoder(sizes: Sizes) -> GraphSpec:
    inputs = (_features(sizes, "B")[1], *_text(sizes), *_exemplars())
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


def _interactive(sizes: Sizes, scale: int, rows: str) -> Tensor:
    side = scale * sizes.grid
    channels = {4: sizes.width // 8, 2: sizes.width // 4, 1: sizes.width}[scale]
    return Tensor(
        f"interactive_x{scale}",
        _F32,
        (rows, channels, side, side),
        f"feature map of {side} x {side} cells over the whole picture",
    )


def _interactive_features(sizes: Sizes) -> GraphSpec:
    return GraphSpec(
        "interactive_features",
        (_embedding(sizes),),
        tuple(_interactive(sizes, scale, "N") for scale in (4, 2, 1)),
        lambda student: InteractiveFeatures(student.interactive_neck, student.objects),
        lambda student: FoldedInteractiveFeatures(student.interactive_neck, student.objects),
    )


def _prompt_decoder(sizes: Sizes) -> GraphSpec:
    side = sizes.mask_size
    coarse = _interactive(sizes, 1, "B")
    inputs = (
        replace(
            coarse, name="conditioned", description=f"{coarse.name} and the past: memory, or `no_memory`"
        ),
        _interactive(sizes, 2, "N"),
        _interactive(sizes, 4, "N"),
        Tensor("image", "int32", ("B",), "the row of interactive_x2 and _x4 that the object is in"),
        Tensor("points", _F32, ("B", "P", 2), "x and y, 0..1 of the picture's width and height; P >= 1"),
        Tensor(
            "point_labels",
            "int32",
            ("B", "P"),
            "1 on the object, 0 not on it, 2 and 3 a box's first and last corner; -1 after the points of "
            "every prompt that has any; -10 padding",
        ),
        Tensor("mask", _F32, ("B", side, side), "logits of a mask of the object over the whole picture"),
        Tensor("has_mask", "bool", ("B",), "false where `mask` is to be ignored"),
    )
    masks = sizes.proposals + 1
    outputs = (
        Tensor(
            "mask_logits",
            _F32,
            ("B", masks, side, side),
            "the first for a clear prompt, the others for an ambiguous one; foreground where > 0",
        ),
        Tensor("iou", _F32, ("B", masks), "predicted IoU of each mask with the object, 0..1"),
        Tensor("object_score", _F32, ("B", 1), "logit of the object being in the picture"),
    )
    objects = lambda student: student.objects  # noqa: E731
    return GraphSpec("prompt_decoder", inputs, outputs, objects, objects, _MASK_BOUND)


def graphs(student: Student, *, texts: bool) -> tuple[GraphSpec, ...]:
    """The graphs of a student, each after those whose results it takes.

    Args:
        texts: False leaves the text encoder out; exemplars alone then take `visual_prompt`.
    """
    builders = [_image_encoder]
    if student.abilities.concepts:
        text = _text_encoder if texts else _visual_prompt
        builders += [_concept_features, text, _concept_decoder, _concept_masks]
    if student.abilities.objects:
        builders += [_interactive_features, _prompt_decoder]
    return tuple(build(student.sizes) for build in builders)
