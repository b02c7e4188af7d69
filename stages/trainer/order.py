"""Which pictures and which random numbers a step uses: functions of the seed and the pictures seen, nothing else.

A resumed training therefore needs no random state to equal an undisturbed one.
"""

import numpy as np
import torch
from torch import Tensor

from stages.storage import sha256_bytes


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed from parts such as (seed, purpose, pictures seen), independent for different parts."""
    return int(sha256_bytes("\0".join(map(str, parts)).encode())[:16], 16) >> 1


def random_source(*parts: object) -> torch.Generator:
    """Return a CPU random generator for these parts; draws move to the device, so that every device gets the same."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def normal_noise(shape: tuple[int, ...], *parts: object) -> Tensor:
    """Return standard normal noise for these parts, float32."""
    return torch.randn(shape, generator=random_source(*parts))


class PictureOrder:
    """An endless order of positions 0 to count - 1: every epoch is a permutation of its own."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._permutation = np.zeros(0, np.int64)

    def positions(self, seen: int, size: int) -> np.ndarray:
        """Return the positions of the pictures number seen to seen + size - 1, across epochs where needed."""
        return np.array([self._position(number) for number in range(seen, seen + size)])

    def _position(self, number: int) -> int:
        epoch, offset = divmod(number, self.count)
        if epoch != self._epoch:
            key = derive_seed(self.seed, "order", epoch)
            self._permutation = np.random.Generator(np.random.Philox(key=key)).permutation(self.count)
            self._epoch = epoch
        return int(self._permutation[offset])
