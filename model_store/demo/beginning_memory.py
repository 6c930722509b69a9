"""The weights that the video memory begins with: what looks like a marked cell, or lies there, is marked.

With random weights following learns nothing for hundreds of steps: what was marked has to come through an
encoder, a resampler and an attention, to a decoder that knows no such mark. Here each begins as its part of
one path. The mark is the direction that the prompt decoder's embedding of a mask moves cells in, which it has
learned to read; the rest of a token is where it lies and what it looks like, for cells to find it by.
"""

# mypy: allow-untyped-calls

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model_store.networks.memory import Past, PerceiverMemory
from model_store.networks.student import Student

# Of a token's channels, the first is the mark; so many tell where it lies, the others what it looks like.
_PLACES = 15
# Logits of a mask, and the deviation of the mark in a token, where looks have about 1.
_SURE, _MARKED = 10.0, 3.0
# How sharply a cell tells the tokens apart that are like it.
_SHARP = 3.0
# Share that every other path begins with of what the libraries begin with.
_QUIET = 0.2
_NEARLY_NOTHING = 0.1
# Rounds of finding how strong the mark is that comes out: its strength is no linear function of the weights.
_ROUNDS = 4


@dataclass(frozen=True, slots=True)
class _Axes:
    """What a token's channels are of a cell's."""

    # (M, D) orthonormal rows: the mark, places, looks.
    rows: Tensor
    # (M,) what each is multiplied by.
    scale: Tensor
    # (D,) of the features.
    mean: Tensor

    @property
    def mark(self) -> Tensor:
        """(D,)."""
        return self.rows[0]

    @property
    def unmarked(self) -> Tensor:
        """(D, D): to a cell without its mark."""
        return torch.eye(len(self.mark), device=self.mark.device) - torch.outer(self.mark, self.mark)


@torch.no_grad()
def begin_memory(student: Student, x1: Tensor, masks: Tensor) -> None:
    """Random values, but for that path.

    Args:
        x1: (N, D, g, g) float32, features of pictures.
        masks: (N, s, s) float32 of 0 and 1, an object in each.
    """
    memory: Any = student.memory
    memory.load_state_dict(PerceiverMemory(student.sizes).to(x1.device).state_dict())
    marked, unmarked, none = _embeddings(student)
    axes = _axes(memory, x1, marked - unmarked)
    _begin_encoder(memory.encoder, axes, masks)
    _begin_resampler(memory, axes)
    _begin_attention(memory, axes)
    memory.attention.norm.weight.fill_(x1.std(1).mean())
    memory.attention.norm.bias.fill_(x1.mean())
    few = x1[:: max(1, len(x1) // 8)]
    for _ in range(_ROUNDS):
        comes = torch.einsum("ndhw,d->", _seen(memory, few, _SURE) - _seen(memory, few, -_SURE), axes.mark)
        for layer in memory.attention.layers:
            share = (marked - unmarked).norm() * few[:, 0].numel() / comes
            layer.cross_attn.o_proj.weight.mul_(share.clamp(0.2, 5))
    # The decoder adds what it adds where no mask is given.
    half = (marked + unmarked) / 2 - none
    wanted = few + (student.objects.no_memory[0, 0] + half)[:, None, None]
    got = (_seen(memory, few, _SURE) + _seen(memory, few, -_SURE)) / 2
    memory.attention.norm.bias.add_((wanted - got).mean((0, 2, 3)))


def _embeddings(student: Student) -> tuple[Tensor, Tensor, Tensor]:
    """(D,) each: what the prompt decoder adds to a cell in a mask, to one beside it, and without a mask."""
    objects: Any = student.objects
    side = student.sizes.mask_size
    logits = torch.tensor([_SURE, -_SURE], device=objects.no_memory.device)
    maps = objects.mask(logits[:, None, None, None].expand(-1, 1, side, side))
    inside, outside = maps[:, :, side // 8, side // 8]
    return inside, outside, objects.no_mask.weight[0]


def _axes(memory: Any, x1: Tensor, difference: Tensor) -> _Axes:
    cells = x1.permute(0, 2, 3, 1).flatten(0, 2)
    rows = F.normalize(difference, dim=0)[None]
    for seen, count in ((_places(memory), _PLACES), (cells, memory.width - 1 - _PLACES)):
        rest = seen - seen.mean(0)
        rest = rest - rest @ rows.T @ rows
        rows = torch.cat((rows, torch.linalg.svd(rest, full_matrices=False).Vh[:count]))
    scale = torch.ones(memory.width, device=x1.device)
    scale[0] = _MARKED
    # Between as they are, where few of them say all, and all alike, where most of them are noise.
    looks = slice(1 + _PLACES, None)
    scale[looks] = ((cells - cells.mean(0)) @ rows[looks].T).std(0) ** -0.5
    return _Axes(rows, scale, cells.mean(0))


def _places(memory: Any) -> Tensor:
    """(W * W, D): the positions of the windows."""
    means = F.adaptive_avg_pool2d(memory.positions, memory.perceiver.windows)
    return means[0].flatten(1).T


def _begin_encoder(encoder: Any, axes: _Axes, masks: Tensor) -> None:
    encoder.features.weight.copy_(axes.unmarked[:, :, None, None])
    encoder.features.bias.copy_(-axes.unmarked @ axes.mean)
    levels = encoder.level(torch.where(masks > 0.5, _SURE, -_SURE), torch.ones_like(masks[:, 0, 0]).bool())
    hidden = encoder.mask[:-1](levels[:, None])
    # The last layer of the mask's convolutions, random ones, is fitted to tell the mask's share of a cell.
    known = F.pad(hidden.permute(0, 2, 3, 1).flatten(0, 2), (0, 1), value=1.0)
    share = F.adaptive_avg_pool2d(levels[:, None] / _SURE, hidden.shape[-2:]).flatten()
    ridge = 0.1 * torch.eye(known.shape[1], device=known.device)
    fitted = torch.linalg.solve(known.T @ known + ridge, known.T @ share)
    encoder.mask[-1].weight.copy_(torch.outer(axes.mark, fitted[:-1])[:, :, None, None])
    encoder.mask[-1].bias.copy_(axes.mark * fitted[-1])
    for block in encoder.fuser.layers:
        block.scale.fill_(_NEARLY_NOTHING)
    encoder.projection.weight.copy_((axes.scale[:, None] * axes.rows)[:, :, None, None])
    nn.init.zeros_(encoder.projection.bias)
    nn.init.normal_(encoder.absent, std=_NEARLY_NOTHING)


def _begin_resampler(memory: Any, axes: _Axes) -> None:
    """A window's token is its place, and the mean of its cells."""
    perceiver = memory.perceiver
    code = _places(memory) @ axes.rows[1 : 1 + _PLACES].T
    nn.init.zeros_(perceiver.latents_2d)
    perceiver.latents_2d[:, 1 : 1 + _PLACES] = code / code.std()
    nn.init.normal_(perceiver.latents_1d, std=0.3)
    for layer in perceiver.layers:
        values = layer.attn.to_kv.weight.chunk(2)[1]
        nn.init.orthogonal_(values)
        layer.attn.to_out.weight.copy_(values.T)
        layer.attn.to_q.weight.mul_(_QUIET)
        for other in (layer.self_attn.to_out, layer.ff[-1], layer.self_ff[-1]):
            other.weight.mul_(_QUIET)


def _begin_attention(memory: Any, axes: _Axes) -> None:
    """Cells attend to tokens that are like them in all but the mark, and take their mark alone."""
    for token in (memory.ages, memory.no_pointer):
        nn.init.normal_(token, std=_NEARLY_NOTHING)
    memory.pointer.proj_out.weight.mul_(_NEARLY_NOTHING)
    for projection in (memory.projection, memory.place_projection):
        projection.weight.copy_(axes.rows.T)
        nn.init.zeros_(projection.bias)
    alike = axes.rows[1:].T @ axes.rows[1:]
    mark = torch.outer(axes.mark, axes.mark) + 0.05 * torch.eye(len(axes.mark), device=axes.mark.device)
    for layer in memory.attention.layers:
        for other in (layer.self_attn.o_proj, layer.linear2):
            other.weight.mul_(_QUIET)
        cross = layer.cross_attn
        for part in (cross.q_proj, cross.k_proj, cross.v_proj, cross.o_proj):
            nn.init.zeros_(part.bias)
        # Turned, so that every head has something of everything.
        turned = nn.init.orthogonal_(torch.empty_like(mark))
        cross.q_proj.weight.copy_(_SHARP * turned @ alike)
        cross.k_proj.weight.copy_(_SHARP * turned @ alike)
        cross.v_proj.weight.copy_(turned)
        cross.o_proj.weight.copy_(mark @ turned.T)


def _seen(memory: Any, x1: Tensor, level: float) -> Tensor:
    """(N, D, g, g): the pictures as they are seen after a frame that was the same, in or beside a mask."""
    rows, device = len(x1), x1.device
    yes = torch.ones((rows, 1), dtype=torch.bool, device=device)
    logits = torch.full((rows, 4 * memory.grid, 4 * memory.grid), level, device=device)
    kept = memory.encode(x1, logits, yes[:, 0], yes.float())
    past = Past(
        memory=kept[:, None],
        ages=torch.zeros_like(yes, dtype=torch.int32),
        memory_valid=yes,
        pointers=memory.no_pointer[None].expand(rows, -1, -1),
        pointer_ages=yes.float(),
        pointers_valid=~yes,
    )
    conditioned: Tensor = memory.condition(x1, past, memory.no_pointer)
    return conditioned
