"""The graphs of a student: their modules, and what goes in and out of them."""

from dataclasses import replace

import torch
from torch import nn

from model_store import sample
from model_store.artifact import Tensor
from model_store.networks.fold import FoldedInteractiveFeatures, FoldedMaskHead, FoldedNeck
from model_store.networks.graph_spec import (
    F32,
    MASK_BOUND,
    GraphSpec,
    conditioned,
    image_row,
    interactive,
    object_score,
    pointers,
)
from model_store.networks.memory_graphs import TrackedPromptDecoder, memory_attention, memory_encoder
from model_store.networks.objects import InteractiveFeatures
from model_store.networks.sizes import Sizes
from model_store.networks.student import Student


def _features(sizes: Sizes, rows: str) -> dict[int, Tensor]:
    return {
        scale: Tensor(
            f"features_x{scale}",
            F32,
            (rows, sizes.width, scale * sizes.grid, scale * sizes.grid),
            f"feature map of {scale * sizes.grid} x {scale * sizes.grid} cells over the whole picture",
        )
        for scale in (4, 2, 1)
    }


def _prompt(sizes: Sizes) -> tuple[Tensor, Tensor]:
    return (
        Tensor("prompt", F32, ("B", "P", sizes.width), "tokens of the whole prompt: text, exemplars, class"),
        Tensor("prompt_valid", "bool", ("B", "P"), "false where the prompt token is padding"),
    )


def _text(sizes: Sizes) -> tuple[Tensor, Tensor]:
    context = sizes.text.context
    return (
        Tensor("text_features", F32, ("B", context, sizes.width), "one feature per token"),
        Tensor("text_valid", "bool", ("B", context), "false where the token is padding (id 0)"),
    )


def _embedding(sizes: Sizes) -> Tensor:
    side = sizes.embedding_side
    return Tensor(
        "embedding",
        F32,
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
        Tensor("exemplar_points", F32, ("B", "J", 2), f"x and y, {unit}; J >= 1"),
        Tensor("exemplar_point_labels", "int32", ("B", "J"), labels),
        Tensor("exemplar_boxes", F32, ("B", "K", 4), f"xyxy, {unit}; K >= 1"),
        Tensor("exemplar_box_labels", "int32", ("B", "K"), labels),
    )


def _concept_decoder(sizes: Sizes) -> GraphSpec:
    inputs = (_features(sizes, "B")[1], *_text(sizes), *_exemplars())
    queries = sizes.queries
    outputs = (
        Tensor("logits", F32, ("B", queries), "score = sigmoid(logits) * sigmoid(presence)"),
        Tensor("presence", F32, ("B", 1), "logit of the concept being in the picture at all"),
        Tensor("boxes", F32, ("B", queries, 4), "xyxy, 0..1 of the picture's width and height; not clipped"),
        Tensor("queries", F32, ("B", queries, sizes.width), "one feature per query"),
        Tensor("encoded", F32, ("B", sizes.width, sizes.grid, sizes.grid), "features_x1 after the prompt"),
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
        Tensor("queries", F32, ("B", "Q", sizes.width), "the queries whose masks are wanted"),
    )
    side = sizes.mask_size
    logits = Tensor(
        "mask_logits",
        F32,
        ("B", "Q", side, side),
        "foreground where > 0 after a bilinear resize to the picture (half-pixel centres, no antialias)",
    )
    return GraphSpec(
        "concept_masks",
        inputs,
        (logits,),
        lambda student: student.masks,
        lambda student: FoldedMaskHead(student.masks),
        MASK_BOUND,
    )


def _interactive_features(sizes: Sizes) -> GraphSpec:
    return GraphSpec(
        "interactive_features",
        (_embedding(sizes),),
        tuple(interactive(sizes, scale, "N") for scale in (4, 2, 1)),
        lambda student: InteractiveFeatures(student.interactive_neck, student.objects),
        lambda student: FoldedInteractiveFeatures(student.interactive_neck, student.objects),
    )


def _prompt_decoder(student: Student) -> GraphSpec:
    sizes = student.sizes
    side = sizes.mask_size
    inputs = (
        conditioned(sizes),
        interactive(sizes, 2, "N"),
        interactive(sizes, 4, "N"),
        image_row(),
        Tensor("points", F32, ("B", "P", 2), "x and y, 0..1 of the picture's width and height; P >= 1"),
        Tensor(
            "point_labels",
            "int32",
            ("B", "P"),
            "1 on the object, 0 not on it, 2 and 3 a box's first and last corner; -1 after the points of "
            "every prompt that has any; -10 padding",
        ),
        Tensor("mask", F32, ("B", side, side), "logits of a mask of the object over the whole picture"),
        Tensor("has_mask", "bool", ("B",), "false where `mask` is to be ignored"),
    )
    masks = sizes.proposals + 1
    outputs: tuple[Tensor, ...] = (
        Tensor(
            "mask_logits",
            F32,
            ("B", masks, side, side),
            "the first for a clear prompt, the others for an ambiguous one; foreground where > 0",
        ),
        Tensor("iou", F32, ("B", masks), "predicted IoU of each mask with the object, 0..1"),
        object_score(),
    )
    objects = lambda student: student.objects  # noqa: E731
    if student.abilities.memory:
        outputs += (pointers(sizes, masks),)
        objects = lambda student: TrackedPromptDecoder(student.objects, student.memory)  # noqa: E731
    return GraphSpec("prompt_decoder", inputs, outputs, objects, objects, MASK_BOUND)


def graphs(student: Student, *, texts: bool) -> tuple[GraphSpec, ...]:
    """The graphs of a student, each after those whose results it takes.

    Args:
        texts: False leaves the text encoder out; exemplars alone then take `visual_prompt`.
    """
    sizes, made = student.sizes, [_image_encoder(student.sizes)]
    if student.abilities.concepts:
        text = _text_encoder if texts else _visual_prompt
        made += [_concept_features(sizes), text(sizes), _concept_decoder(sizes), _concept_masks(sizes)]
    if student.abilities.objects:
        made += [_interactive_features(sizes), _prompt_decoder(student)]
    if student.abilities.memory:
        made += [memory_encoder(student), memory_attention(student)]
    return tuple(made)
