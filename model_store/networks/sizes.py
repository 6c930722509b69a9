"""A student as numbers: everything its networks need to know to be built."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from model_store.registry import Variant

ImageNetwork = Literal["student", "sam3"]
TextNetwork = Literal["mobileclip", "sam3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSizes:
    """The text encoder's numbers."""

    # Tokens per text, start and end included.
    context: int
    width: int
    layers: int
    heads: int
    # True: the first and the last layer mix tokens by convolution instead of attention.
    convolutional_ends: bool = False
    vocabulary: int = 49_408
    # Which network the numbers are for.
    network: TextNetwork = "mobileclip"
    # True: it is exported unless someone says otherwise.
    by_default: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySizes:
    """The numbers of what keeps a tracked object's past. Those of one kind mean nothing to the other."""

    # Channels of a memory token; the model's width is a multiple of it.
    width: int = 64
    # Ages that a remembered frame can have: that of a conditioning frame, and 1 to `frames - 1` frames.
    frames: int = 7
    # Frames whose pointers are kept, the latest included.
    pointers: int = 16
    # Halvings from the mask that is remembered to the grid.
    mask_steps: int = 4
    fuser_layers: int = 2
    fuser_feed_forward: int = 1024
    # Cells.
    fuser_kernel: int = 7
    # Dense: attention to every cell of every remembered frame.
    dense_layers: int = 4
    dense_heads: int = 1
    dense_feed_forward: int = 2048
    # Perceiver: tokens of a frame that see all of it, and side of the square of windows that have one each.
    latents: int = 64
    windows: int = 16
    perceiver_layers: int = 2
    perceiver_heads: int = 1
    perceiver_head_width: int = 64
    perceiver_feed_forward: int = 256
    # Perceiver: attention to the tokens.
    attention_layers: int = 2
    attention_heads: int = 8
    attention_feed_forward: int = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A student's numbers. Sides are in cells or pixels of square maps."""

    # timm's name of a student's trunk, and the channels of its last stage.
    trunk: str
    trunk_channels: int
    text: TextSizes
    # What timm is to build it with where that differs from its defaults.
    trunk_numbers: Mapping[str, Any] = field(default_factory=dict)
    # Pixels per cell of the image embedding.
    trunk_stride: int = 32
    # "student": timm's trunk and a projection head. "sam3": SAM3's own vision transformer.
    image_network: ImageNetwork = "student"
    # Side of the picture, pixels.
    image_size: int = 1008
    embedding_channels: int = 1024
    # Side of the coarsest feature map, to which the embedding is resized; the others are 2 and 4 times that.
    grid: int = 72
    width: int = 256
    heads: int = 8
    feed_forward: int = 2048
    geometry_layers: int = 3
    encoder_layers: int = 6
    decoder_layers: int = 6
    queries: int = 200
    # Side of the pooled map of an exemplar box.
    exemplar_cells: int = 7
    # Masks that the prompt decoder proposes for an ambiguous prompt, beside the one for a clear prompt.
    proposals: int = 3
    object_layers: int = 2
    memory: MemorySizes = MemorySizes()

    @property
    def embedding_side(self) -> int:
        """Side of the image embedding: the trunk rounds the picture's side up."""
        return -(-self.image_size // self.trunk_stride)

    @property
    def mask_size(self) -> int:
        """Side of the mask logits."""
        return 4 * self.grid

    @property
    def remembered_size(self) -> int:
        """Side of the mask that the memory encoder takes in."""
        return (1 << self.memory.mask_steps) * self.grid


def _trunk(name: str, channels: int) -> dict[str, Any]:
    return {"trunk": name, "trunk_channels": channels}


# By `Variant.image_encoder`: what sets a student apart from a full one with its trunk unnamed.
IMAGES: Mapping[str, Mapping[str, Any]] = {
    "efficientvit_b0": _trunk("efficientvit_b0", 128),
    "efficientvit_b1": _trunk("efficientvit_b1", 256),
    "efficientvit_b2": _trunk("efficientvit_b2", 384),
    "repvit_m0_9": _trunk("repvit_m0_9", 384),
    "repvit_m1_1": _trunk("repvit_m1_1", 512),
    "repvit_m2_3": _trunk("repvit_m2_3", 640),
    "tiny_vit_5m": _trunk("tiny_vit_5m_224", 320),
    "tiny_vit_11m": _trunk("tiny_vit_11m_224", 448),
    "tiny_vit_21m": _trunk("tiny_vit_21m_224", 576),
    "sam3_vit": _trunk("", 1024) | {"trunk_stride": 14, "image_network": "sam3"},
    # The embedded student's. Plain 3x3 residual blocks: on a processor without a depthwise kernel for bf16,
    # depthwise ones take some twenty times as long to train.
    "demo": _trunk("resnet10t", 192)
    | {
        "trunk_numbers": {
            "layers": (2, 2, 3, 2),
            "channels": (32, 64, 128, 192),
            "stem_width": 24,
            "output_stride": 16,
        },
        "trunk_stride": 16,
        "image_size": 320,
        "embedding_channels": 192,
        "grid": 20,
        "width": 96,
        "heads": 4,
        "feed_forward": 384,
        "geometry_layers": 1,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "queries": 40,
        "exemplar_cells": 5,
        "memory": MemorySizes(
            width=48,
            fuser_feed_forward=256,
            latents=16,
            windows=10,
            perceiver_heads=2,
            perceiver_head_width=24,
            perceiver_feed_forward=192,
            attention_heads=4,
            attention_feed_forward=384,
        ),
    },
}
# By `Variant.text_encoder`; `context` is the variant's.
TEXTS = {
    "mobileclip_s0": TextSizes(context=0, width=512, layers=6, heads=8, convolutional_ends=True),
    "mobileclip_s1": TextSizes(context=0, width=512, layers=12, heads=8),
    "mobileclip2_l": TextSizes(context=0, width=768, layers=12, heads=12),
    "sam3": TextSizes(context=0, width=1024, layers=24, heads=16, network="sam3", by_default=False),
    # Of CLIP's merges, those that its words need.
    "demo": TextSizes(context=0, width=128, layers=3, heads=4, vocabulary=2304),
}


def sizes_of(variant: Variant, context: int | None = None) -> Sizes:
    """The numbers of a variant.

    Args:
        context: tokens per text; None for the variant's own.

    Raises:
        KeyError: no network is known for one of its encoders.
    """
    text = replace(TEXTS[variant.text_encoder], context=context or variant.context_length)
    return Sizes(text=text, **IMAGES[variant.image_encoder])
