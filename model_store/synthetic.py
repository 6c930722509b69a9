"""Weights of our own recipe: each tensor follows from its name and shape alone, on every machine."""

import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model_store import sample
from model_store.networks.geometry import PADDING
from model_store.networks.sizes import Sizes
from model_store.networks.student import build

RECIPE = "uniform-1"
# Queries that pass the threshold on the sample, the deviation of their logits, and the presence logit.
_KEPT = 5
_SPREAD = 2.0
_PRESENCE = 3.0

# (pattern, mean, deviation) of tensors that the general law does not fit.
_SPECIAL = (
    (r"(query_embed|presence_token|label_embed|cls_embed|token_embedding)\.weight$", 0.0, 1.0),
    (r"objects\.(points\.(labels\.\d|no_point)|no_mask|decoder\..*_tokens?)\.weight$", 0.0, 1.0),
    (r"objects\.points\.positions$", 0.0, 1.0),
    (r"objects\.no_memory$", 0.0, 0.3),
    (r"pred_obj_score_head\.proj_out\.bias$", 4.0, 0.02),
    # Gates that are mostly open.
    (r"image\.trunk\..*\.se\.fc2\.bias$", 2.0, 0.3),
    (r"attention_biases$", 0.0, 0.5),
    (r"reference_points\.weight$", 0.0, 1.2),
    (r"position_embedding(s|\.weight)?$", 0.0, 0.5),
    (r"running_mean$", 0.0, 0.1),
    (r"running_var$", 1.0, 0.15),
    (r"layer_scale$", 0.3, 0.03),
)
# (pattern, gain) on the general deviation, so that what differs at the bottom still differs at the top.
_GAINS = (
    (r"decoder\.layers\.\d+\..*attn\.[qk]_proj\.weight$", 1.7),
    (r"decoder\.layers\.\d+\.vision_cross_attn\.o_proj\.weight$", 0.05),
    (r"decoder\.layers\.\d+\..*attn\.o_proj\.weight$", 0.1),
    (r"decoder\.layers\.\d+\.mlp\.fc2\.weight$", 0.3),
    # What a picture shows must outweigh what is asked of it, or a text's masks are all full or all empty.
    (r"(masks\.prompt_attention|encoder\.layers\.\d+\.cross_attn)\.o_proj\.weight$", 0.05),
    (r"image\.head\.3\.weight$", 2.0),
    # RepViT adds up three branches and has no norm between its blocks.
    (r"image\.trunk\..*token_mixer\.(conv1|conv\.c)\.weight$", 0.25),
    (r"image\.trunk\..*channel_mixer\.conv2\.c\.weight$", 0.35),
    (r"context_module\.main\.proj\.conv\.weight$", 0.3),
    (r"depth_conv\.conv\.weight$", 2.0),
    (r"point_conv\.conv\.weight$", 1.3),
)
_TRANSPOSED = re.compile(r"(scale_layers\.\d|upscale_conv\d)\.weight$")
# Kernels whose cells are alike. Else transposed ones draw checkerboards, and 3x3 ones on the way to the
# masks draw noise, where a trained student's masks are blobs that cost little to encode.
_FLAT = re.compile(
    r"(scale_layers\.\d|upscale_conv\d|neck\.levels\.\d\.proj2|masks\.pixels\.conv_layers\.\d)\.weight$"
)


def weights(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """A float32 tensor for every name."""
    return {name: fill(name, tuple(shape)) for name, shape in shapes.items()}


def fill(name: str, shape: tuple[int, ...]) -> Tensor:
    """The float32 tensor of that name and shape."""
    mean, deviation = _law(name, shape)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    drawn = (*shape[:2], 1, 1) if _FLAT.search(name) else shape
    uniform = np.random.Generator(np.random.PCG64(seed)).random(drawn, dtype=np.float32)
    values = mean + deviation * math.sqrt(12) * (uniform - np.float32(0.5))
    if name.endswith("depth_conv.conv.weight"):
        # Mostly differences between neighbours, or the trunk sees nothing but the picture's average.
        values -= 0.8 * values.mean(axis=(2, 3), keepdims=True)
    return torch.from_numpy(np.broadcast_to(values, shape).astype(np.float32))


def _law(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and deviation."""
    for pattern, mean, deviation in _SPECIAL:
        if re.search(pattern, name):
            return mean, deviation
    if len(shape) <= 1:
        return (0.0, 0.05) if name.endswith("bias") else (1.0, 0.1)
    fan_in = shape[0] if _TRANSPOSED.search(name) else math.prod(shape[1:])
    if _FLAT.search(name) and not _TRANSPOSED.search(name):
        # Its cells add up instead of averaging out.
        fan_in *= shape[2] * shape[3]
    gain = next((gain for pattern, gain in _GAINS if re.search(pattern, name)), 1.0)
    return 0.0, gain / math.sqrt(fan_in)


def calibrate(sizes: Sizes, made: dict[str, Tensor], threshold: float) -> None:
    """Changes biases and gains so that a few queries pass the threshold on the sample picture and text.

    Recipe weights as they are give every query nearly the same score, and masks that are all one sign.

    Args:
        made: what `weights` gave; changed in place.
        threshold: score, 0..1.
    """
    student = build(sizes, {name: value for name, value in made.items() if not name.startswith("memory.")})
    picture = torch.from_numpy(sample.picture(sizes.image_size)[None])
    tokens = torch.from_numpy(sample.tokens(sizes.text.context, sizes.text.vocabulary))
    with torch.inference_mode():
        x4, x2, x1 = student.neck(student.image(picture))
        padding = torch.full((1, 1), PADDING, dtype=torch.int32)
        exemplars = (torch.zeros(1, 1, 2), padding, torch.zeros(1, 1, 4), padding)
        _, _, _, queries, encoded, prompt, valid = student.detector(x1, *student.text(tokens), *exemplars)
        attended = student.masks.attend(encoded, prompt, valid)
        margin = sizes.mask_size // 8
        # The rim is darkened by the convolutions' padding.
        inner = student.masks.pixels([x4, x2, attended])[:, :, margin:-margin, margin:-margin]
        pooled = _pooled(student.detector.scoring, prompt, valid)[0]
    _calibrate_scores(sizes, made, queries[0], pooled, threshold)
    made["masks.instances.bias"] = -(made["masks.instances.weight"][:, :, 0, 0] @ inner.mean((0, 2, 3)))


def _pooled(scoring: Any, prompt: Tensor, valid: Tensor) -> Tensor:
    """The vector (B, D) that each query's is multiplied with for its logit."""
    mixed = scoring.text_mlp_out_norm(scoring.text_mlp(prompt) + prompt)
    projected: Tensor = scoring.text_proj(scoring._pool_text_features(mixed, valid))
    return projected


def _calibrate_scores(
    sizes: Sizes, made: dict[str, Tensor], queries: Tensor, pooled: Tensor, threshold: float
) -> None:
    """Spreads the logits, and puts the threshold between the query that is to pass last and the next."""
    weight = "detector.scoring.query_proj.weight"
    presence = "detector.decoder.presence_head.layer3"
    made[presence + ".weight"] = 0.1 * made[presence + ".weight"]
    made[presence + ".bias"] = torch.full_like(made[presence + ".bias"], _PRESENCE)
    # What a logit must be for its score to be the threshold.
    target = torch.logit(torch.tensor(threshold) / torch.sigmoid(torch.tensor(_PRESENCE)))
    common = queries.mean(0)
    scale = sizes.width**-0.5
    logits = (queries - common) @ made[weight].T @ pooled * scale
    ranked = (logits / logits.std()).sort(descending=True).values
    shift = target - _SPREAD * (ranked[_KEPT - 1] + ranked[_KEPT]) / 2
    made[weight] = made[weight] * (_SPREAD / logits.std())
    along = pooled * (shift / scale / (pooled @ pooled))
    made["detector.scoring.query_proj.bias"] = along - made[weight] @ common
