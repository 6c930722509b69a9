"""Instances on trial: answered once enough frames found them again, forgotten where too few did.

SAM3's video inference holds its answers back for 15 frames. Of the tracks that began within them it forgets
those that were missed on 8, and those that shared their detection with an older track on 8. Live answers
cannot wait: an instance is on trial for as long as it takes, and is not answered until then. `frames`, the
session's `confirm_frames`, stands for the 15 and `frames // 2 + 1` for either 8, so a trial ends after at
most 2 * `frames` frames. Only frames on which the text was looked for count.
"""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True)
class Trial:
    """Frames on which an instance was looked for, by what came of it."""

    # The one that began it included.
    found: int = 1
    missed: int = 0
    # The detection that found it found an older track as well.
    shared: int = 0

    @classmethod
    def of(cls, frames: int) -> Self | None:
        """What a new instance begins with; None: it needs no trial."""
        return cls() if frames > 1 else None

    def after(self, *, found: bool, shared: bool) -> "Trial":
        """The trial after one more frame."""
        if not found:
            return replace(self, missed=self.missed + 1)
        if shared:
            return replace(self, shared=self.shared + 1)
        return replace(self, found=self.found + 1)

    def passed(self, frames: int) -> bool:
        """Whether the instance is to be answered from now on."""
        return self.found >= frames

    def failed(self, frames: int) -> bool:
        """Whether it is to be forgotten."""
        return max(self.missed, self.shared) > frames // 2
