"""How the released files name what the networks here name otherwise.

The table goes from our names to theirs, so that what a file must hold follows from the networks alone, and
whatever is wrong with a file can be told in the file's own words.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_VISION = "detector.backbone.vision_backbone."
_TRUNK = _VISION + "trunk.model."
_LANGUAGE = "detector.backbone.language_backbone."
_TRANSFORMER = "detector.transformer."

# Applied in order, each where it matches. The first block places the parts, the others rename inside them.
_TABLE: tuple[tuple[str, str], ...] = (
    (r"^image\.trunk\.", _TRUNK + "backbone.model."),
    (r"^image\.head\.", _TRUNK + "head."),
    (r"^neck\.levels\.", _VISION + "convs."),
    (r"^text\.projector\.", _LANGUAGE + "projector."),
    (r"^text\.", _LANGUAGE + "encoder."),
    (r"^detector\.(encoder|decoder)\.", _TRANSFORMER + r"\1."),
    (r"^detector\.geometry\.", "detector.geometry_encoder."),
    (r"^detector\.scoring\.", "detector.dot_prod_scoring."),
    (r"^masks\.", "detector.segmentation_head."),
    # EfficientViT
    (r"(model\.)stem\.in_conv\.", r"\1input_stem.op_list.0."),
    (r"(model\.)stem\.res0\.", r"\1input_stem.op_list.1."),
    (r"(model\.stages\.\d+)\.blocks\.", r"\1.op_list."),
    # neck
    (r"(convs\.0)\.scale_layers\.0\.", r"\1.dconv_2x2_0."),
    (r"(convs\.0)\.scale_layers\.2\.", r"\1.dconv_2x2_1."),
    (r"(convs\.1)\.scale_layers\.0\.", r"\1.dconv_2x2."),
    (r"(convs\.\d)\.proj1\.", r"\1.conv_1x1."),
    (r"(convs\.\d)\.proj2\.", r"\1.conv_3x3."),
    # text encoder
    (r"embeddings\.token_embedding\.", "embedding_layer."),
    (r"embeddings\.position_embedding\.position_embedding$", "positional_embedding.pos_embed.pos_embed"),
    (r"(language_backbone\.encoder)\.layers\.", r"\1.transformer."),
    (r"token_mixer\.reference_batchnorm\.", "token_mixer.norm.rbr_skip."),
    (r"mixer\.batchnorm_skip\.", "mixer.rbr_skip."),
    (r"mixer\.conv\.", "mixer.rbr_conv.0.conv."),
    (r"mixer\.batchnorm_conv\.", "mixer.rbr_conv.0.bn."),
    (r"conv_feed_forward\.depthwise_conv\.", "convffn.conv.conv."),
    (r"conv_feed_forward\.depthwise_batchnorm\.", "convffn.conv.bn."),
    (r"conv_feed_forward\.mlp\.", "convffn."),
    (r"(encoder\.transformer\.\d+)\.layer_norm1\.", r"\1.pre_norm_mha.0."),
    (r"(encoder\.transformer\.\d+)\.self_attn\.([qkv])_proj\.", r"\1.pre_norm_mha.1.qkv_proj.[\2]"),
    (r"(encoder\.transformer\.\d+)\.self_attn\.", r"\1.pre_norm_mha.1."),
    (r"(encoder\.transformer\.\d+)\.layer_norm2\.", r"\1.pre_norm_ffn.0."),
    (r"(encoder\.transformer\.\d+)\.mlp\.fc1\.", r"\1.pre_norm_ffn.1."),
    (r"(encoder\.transformer\.\d+)\.mlp\.fc2\.", r"\1.pre_norm_ffn.4."),
    # geometry encoder
    (r"(geometry_encoder)\.vision_layer_norm\.", r"\1.img_pre_norm."),
    (r"(geometry_encoder)\.prompt_layer_norm\.", r"\1.norm."),
    (r"(geometry_encoder)\.output_layer_norm\.", r"\1.encode_norm."),
    (r"(geometry_encoder)\.layers\.", r"\1.encode."),
    # decoder
    (r"(decoder)\.output_layer_norm\.", r"\1.norm."),
    (r"(decoder)\.presence_layer_norm\.", r"\1.presence_token_out_norm."),
    (r"(decoder)\.presence_head\.", r"\1.presence_token_head."),
    (r"(decoder)\.box_head\.", r"\1.bbox_embed."),
    (r"(decoder)\.box_rpb_embed_([xy])\.", r"\1.boxRPB_embed_\2."),
    (r"\.self_attn_layer_norm\.", ".norm2."),
    (r"\.text_cross_attn_layer_norm\.", ".catext_norm."),
    (r"\.vision_cross_attn_layer_norm\.", ".norm1."),
    (r"\.mlp_layer_norm\.", ".norm3."),
    (r"\.text_cross_attn\.", ".ca_text."),
    (r"\.vision_cross_attn\.", ".cross_attn."),
    # scoring and mask head
    (r"\.text_mlp_out_norm\.", ".prompt_mlp.out_norm."),
    (r"\.text_mlp\.", ".prompt_mlp."),
    (r"\.text_proj\.", ".prompt_proj."),
    (r"\.query_proj\.", ".hs_proj."),
    (r"(segmentation_head)\.prompt_norm\.", r"\1.cross_attn_norm."),
    (r"(segmentation_head)\.prompt_attention\.", r"\1.cross_attend_prompt."),
    (r"(segmentation_head)\.pixels\.", r"\1.pixel_decoder."),
    (r"(segmentation_head)\.instances\.", r"\1.instance_seg_head."),
    (r"(segmentation_head)\.queries\.", r"\1.mask_predictor.mask_embed."),
    # layers of the geometry encoder and of the transformer
    (r"(encoder\.layers\.\d+|encode\.\d+)\.cross_attn\.", r"\1.cross_attn_image."),
    (r"(encoder\.layers\.\d+|encode\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
    (r"(layers\.\d+|encode\.\d+)\.mlp\.fc(\d)\.", r"\1.linear\2."),
    # attention: query, key and value lie in one tensor, one after the other
    (r"\.([qkv])_proj\.(weight|bias)$", r".in_proj_[\1]\2"),
    (r"\.o_proj\.", ".out_proj."),
)
# Small perceptrons count their layers from 0 there and from 1 here.
_PERCEPTRON = re.compile(
    r"(prompt_mlp|bbox_embed|ref_point_head|presence_token_head|boxRPB_embed_[xy])\.layer(\d)\."
)
_THIRD = re.compile(r"\[([qkv])\]")

# What a file may hold beyond what the graphs of today read. Anything else is unexpected.
UNUSED: Mapping[str, str] = {
    "tracker": r"^tracker\.",
    "interactive features": r"^detector\.backbone\.vision_backbone\.sam2_convs\.",
    "half-size features": r"^detector\.backbone\.vision_backbone\.convs\.3\.",
    "point exemplars": r"^detector\.geometry_encoder\.points_",
    "semantic head": r"^detector\.segmentation_head\.semantic_seg_head\.",
    "third pixel decoder stage": r"^detector\.segmentation_head\.pixel_decoder\.(conv_layers|norms)\.2\.",
    "text projection of CLIP": r"^detector\.backbone\.language_backbone\.encoder\.projection_layer$",
    "batch counters": r"\.num_batches_tracked$",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tensor of ours lies in a released file."""

    key: str
    # 0, 1 or 2: that third of the tensor's rows. None: the whole tensor.
    third: int | None


def source_of(name: str) -> Source:
    """Where the released file keeps the tensor that our networks call `name`."""
    for pattern, replacement in _TABLE:
        name = re.sub(pattern, replacement, name)
    name = _PERCEPTRON.sub(lambda found: f"{found[1]}.layers.{int(found[2]) - 1}.", name)
    found = _THIRD.search(name)
    return Source(_THIRD.sub("", name), "qkv".index(found[1]) if found else None)


def canonical(key: str) -> str:
    """A released file's key as the full checkpoint has it.

    Files differ by wrappers they were saved through (`module.`, `student_trunk.`), by the name of the
    interactive part (`inst_interactive_predictor.model.` for `tracker.`) and in whether the detector's keys
    start with `detector.`.
    """
    key = re.sub(r"(^|(?<=\.))(module|student_trunk)\.", "", key)
    key = re.sub(r"^(detector\.)?inst_interactive_predictor\.model\.", "tracker.", key)
    return key if key.startswith(("detector.", "tracker.")) else "detector." + key


def unused_group(key: str) -> str | None:
    """The group of `UNUSED` a canonical key belongs to, or None."""
    return next((group for group, pattern in UNUSED.items() if re.search(pattern, key)), None)


def sources(names: Iterable[str]) -> dict[str, Source]:
    """`source_of` for each name."""
    return {name: source_of(name) for name in names}
