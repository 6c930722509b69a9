"""The optimiser: Muon for matrices and kernels, AdamW for everything else.

Muon is https://kellerjordan.github.io/posts/muon.
"""

# mypy: allow-untyped-calls

from collections import defaultdict
from typing import Any

import torch
from torch import nn

from model_store.demo.learner import PACES, Learner
from model_store.demo.plan import SLOW

_WEIGHT_DECAY = 0.02


class Optimiser:
    """Both as one, at one learning rate: Muon's updates are scaled to the size that AdamW's have."""

    def __init__(self, learner: Learner) -> None:
        matrices = _matrices(learner)
        rest = {name: one for name, one in learner.named_parameters() if name not in matrices}
        # Muon takes matrices alone: a kernel is one with a row for each output channel, of the same memory.
        self._kernels = [(one, nn.Parameter(one.data.view(len(one), -1))) for one in matrices.values()]
        flat = dict(zip(matrices, (view for _, view in self._kernels), strict=True))
        self._parts: dict[str, torch.optim.Optimizer] = {
            "adam": torch.optim.AdamW(_groups(rest), betas=(0.9, 0.98), foreach=True),
            "muon": torch.optim.Muon(_groups(flat), adjust_lr_fn="match_rms_adamw"),
        }

    def step(self, rate: float, neck: float) -> None:
        """One step at this learning rate; `neck` is the pace of what is `SLOW` at first."""
        for kernel, view in self._kernels:
            view.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate * (neck if group["pace"] == SLOW else group["pace"])
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Of both."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])


def _matrices(learner: Learner) -> dict[str, nn.Parameter]:
    """The weights of layers whose every output is made of all inputs."""
    mixing = {
        f"{name}.weight"
        for name, module in learner.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    }
    named = learner.named_parameters()
    return {name: one for name, one in named if name in mixing and min(one.flatten(1).shape) > 1}


def _groups(parameters: dict[str, nn.Parameter]) -> list[dict[str, Any]]:
    """By what becomes of them: matrices decay, and not all learn at one pace."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        pace = next((pace for prefix, pace in PACES.items() if name.startswith(prefix)), 1.0)
        groups[pace, parameter.dim() >= 2].append(parameter)
    return [
        {"params": members, "weight_decay": _WEIGHT_DECAY if decays else 0.0, "pace": pace}
        for (pace, decays), members in sorted(groups.items(), key=lambda group: group[0])
    ]
