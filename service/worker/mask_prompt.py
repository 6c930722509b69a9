"""placeholder until the branch comes"""

import numpy as np


def logits_of(path, mask, side):
    return np.frombuffer(mask.logits, "<f2").reshape(mask.height, mask.width).astype(np.float32)
