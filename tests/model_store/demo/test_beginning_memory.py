"""What the memory begins with: cells like the marked ones are marked in the frames that follow."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from model_store.demo.beginning_memory import begin_memory
from model_store.demo.learner import Learner
from model_store.demo.student import sizes
from model_store.networks.memory import Past


def _features(objects: Tensor, generator: torch.Generator) -> Tensor:
    """(N, s, s) of 0 and 1 -> (N, D, g, g): objects and what is around them look each like itself."""
    inside, outside = torch.randn((2, sizes().width), generator=generator)
    share = F.adaptive_avg_pool2d(objects[:, None], sizes().grid)
    noise = 0.3 * torch.randn((len(objects), sizes().width, *share.shape[2:]), generator=generator)
    return share * inside[:, None, None] + (1 - share) * outside[:, None, None] + noise


def _square(left: int) -> Tensor:
    mask = torch.zeros(64, 64)
    mask[20:40, left : left + 20] = 1
    return mask


@torch.no_grad()
def test_an_object_that_moves_is_marked_where_it_is_and_not_where_it_was() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    student = Learner(sizes()).student
    frames = torch.stack([_square(left) for left in range(0, 40, 5)])
    x1 = _features(frames, generator)
    begin_memory(student, x1, frames)
    yes = torch.ones((1, 1), dtype=torch.bool)
    before = student.memory.encode(x1[:1], (20 * frames - 10)[:1], yes[:, 0], yes.float())
    past = Past(
        before[:, None],
        torch.zeros((1, 1), dtype=torch.int32),
        yes,
        student.memory.no_pointer[None],
        yes.float(),
        ~yes,
    )
    side = sizes().mask_size
    marks = student.objects.mask(torch.tensor([10.0, -10.0]).reshape(2, 1, 1, 1).expand(2, 1, side, side))
    mark = F.normalize((marks[0] - marks[1])[:, 8, 8], dim=0)
    now = x1[-1:]
    seen = torch.einsum("dhw,d->hw", student.memory.condition(now, past, student.objects.no_memory)[0], mark)
    share = F.adaptive_avg_pool2d(frames[-1][None], sizes().grid)[0]
    inside, outside = seen[share == 1], seen[share == 0]
    assert inside.min() > outside.max()
