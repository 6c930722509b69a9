"""A student as numbers: everything its networks need to know to be built."""

from dataclasses import dataclass

from model_store.registry import Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSizes:
    """The text encoder's numbers."""

    # Tokens per text, start and end included.
    context: int
    width: int
    layers: int
    heads: int
    # True: the first and the last layer mix tokens by convolution instead of attention.
    convolutional_ends: bool
    vocabulary: int = 49_408


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A student's numbers. Sides are in cells or pixels of square maps."""

    # timm's name of the trunk, and the channels and the stride of its last stage.
    trunk: str
    trunk_channels: int
    text: TextSizes
    trunk_stride: int = 32
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

    @property
    def embedding_side(self) -> int:
        """Side of the image embedding: the trunk rounds the picture's side up."""
        return -(-self.image_size // self.trunk_stride)

    @property
    def mask_size(self) -> int:
        """Side of the mask logits."""
        return 4 * self.grid


# By `Variant.image_encoder`: trunk and channels (the stage of stride 32).
IMAGE_ENCODERS = {
    "efficientvit_b0": ("efficientvit_b0", 128),
    "efficientvit_b1": ("efficientvit_b1", 256),
}
# By `Variant.text_encoder`: width, layers, heads, convolutional ends.
TEXT_ENCODERS = {
    "mobileclip_s0": (512, 6, 8, True),
}


def sizes_of(variant: Variant) -> Sizes:
    """The numbers of a runnable variant.

    Raises:
        KeyError: no network is known for one of its encoders.
    """
    trunk, channels = IMAGE_ENCODERS[variant.image_encoder]
    width, layers, heads, ends = TEXT_ENCODERS[variant.text_encoder]
    text = TextSizes(
        context=variant.context_length, width=width, layers=layers, heads=heads, convolutional_ends=ends
    )
    return Sizes(trunk=trunk, trunk_channels=channels, text=text)
