"""Lets a discriminator see how alike the pictures of a group are: a generator that repeats itself is found out.

Groups are of pictures next to each other in the batch, so that they never cross the processes of a training, nor the
parts of an accumulated batch.
"""

import torch
from torch import Tensor, nn

from stages.errors import InputError


def grouped(values: Tensor, group: int) -> Tensor:
    """Return (N, ...) as (N / G, G, ...); fewer pictures than a group are one group.

    Raises:
        InputError: N is no multiple of the group.
    """
    size = min(group, len(values))
    if len(values) % size:
        raise InputError(
            f"a process's part of the batch is {len(values)} pictures, which minibatch groups of {size} do not divide; "
            "set minibatch_group to a divisor"
        )
    return values.reshape(-1, size, *values.shape[1:])


class MinibatchStddev(nn.Module):
    """(N, C, H, W) to (N, C + 1, H, W): the mean standard deviation over a group (Karras 2018, section 3)."""

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group

    def forward(self, values: Tensor) -> Tensor:
        """Append one channel, constant over a group."""
        groups = grouped(values.float(), self.group)
        deviation = (groups.var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        channel = deviation.to(values.dtype).repeat_interleave(groups.shape[1])[:, None, None, None]
        return torch.cat([values, channel.expand(-1, 1, *values.shape[2:])], 1)


class MinibatchDiscrimination(nn.Module):
    """(N, A) to (N, A + kernels): how close a picture's features are to the others' of its group.

    o(x_i)_b = sum over j != i of exp(-|M_i,b - M_j,b|_1), M = x T (Salimans 2016, section 3.2).
    """

    def __init__(self, features: int, kernels: int, group: int, dimensions: int = 5) -> None:
        super().__init__()
        self.group, self.shape = group, (kernels, dimensions)
        self.tensor = nn.Parameter(torch.randn(features, kernels * dimensions) * 0.05)

    def forward(self, features: Tensor) -> Tensor:
        """Append the closeness by each kernel."""
        rows = grouped((features @ self.tensor).unflatten(1, self.shape).float(), self.group)  # (M, G, B, C)
        distances = (rows[:, :, None] - rows[:, None]).abs().sum(-1)  # (M, G, G, B)
        closeness = (-distances).exp().sum(2) - 1  # without itself
        return torch.cat([features, closeness.flatten(0, 1).to(features.dtype)], 1)
