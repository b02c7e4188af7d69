"""Less memory for the same step: activations that are computed twice instead of kept, and batches in parts."""

import contextlib
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Of batch norm, of spectral norm's power iteration, of a mapping's mean style.
MOVING = ("running_mean", "running_var", "num_batches_tracked", "_u", "_v", "w_avg")


class FrozenMoments:
    """Puts a network's buffers, such as batch norm's running moments, back after a block; may be entered again.

    Only those that a pass changes: constants may be kept for a backward pass, and are not to be written to then.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.kept: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = moving(self.network)

    def __exit__(self, *_: object) -> None:
        put_back(self.kept)
        self.kept = []


class FirstPass:
    """Remembers a segment's buffers as they are when it is computed."""

    def __init__(self, segment: nn.Module) -> None:
        self.segment = segment
        self.kept: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = moving(self.segment)

    def __exit__(self, *_: object) -> None:
        """Leave the buffers as the computation made them."""


class Repetition(FrozenMoments):
    """Computes a segment with the buffers of its first pass, and puts those of now back; may be entered again.

    Spectral norm's power iteration goes on from where it is: without this the repetition would have other weights.
    """

    def __init__(self, first: FirstPass) -> None:
        super().__init__(first.segment)
        self.first = first

    def __enter__(self) -> None:
        super().__enter__()
        put_back(self.first.kept)


def moving(network: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Return the buffers that a pass changes in place, each with a copy of its value."""
    buffers = network.named_buffers()
    return [(buffer, buffer.clone()) for name, buffer in buffers if name.rpartition(".")[2] in MOVING]


@torch.no_grad()
def put_back(kept: list[tuple[Tensor, Tensor]]) -> None:
    """Write kept values into their buffers."""
    for buffer, before in kept:
        buffer.copy_(before)


def checkpoint_layers(network: nn.Module) -> None:
    """Keep only about sqrt(n) activations of a network's n `layers`; backward computes the others again (Chen 2016).

    A network that is no sequence keeps what its `blocks` take and give. Running moments take each batch once, and the
    result is the same.
    """
    layers = getattr(network, "layers", None)
    if not isinstance(layers, nn.Sequential):
        for block in network.blocks:  # type: ignore[union-attr]
            checkpoint_block(block)
        return
    segments = cut_layers(list(layers))

    def forward(value: Tensor) -> Tensor:
        for segment in segments:
            contexts = partial(_contexts, segment)
            value = checkpoint(segment, value, use_reentrant=False, context_fn=contexts)
        return value

    layers.forward = forward  # type: ignore[method-assign]


def checkpoint_block(block: nn.Module) -> None:
    """Keep a block's inputs only."""
    whole = block.forward

    def forward(*values: Any, **more: Any) -> Any:
        if not torch.is_grad_enabled():
            return whole(*values, **more)
        return checkpoint(whole, *values, use_reentrant=False, context_fn=partial(_contexts, block), **more)

    block.forward = forward


def cut_layers(modules: list[nn.Module]) -> list[nn.Sequential]:
    """Return about sqrt(n) segments of n modules; none begins with one that overwrites its input, which is kept."""
    length = math.ceil(math.sqrt(len(modules)))
    segments: list[list[nn.Module]] = [[]]
    for module in modules:
        if len(segments[-1]) >= length and not getattr(module, "inplace", False):
            segments.append([])
        segments[-1].append(module)
    return [nn.Sequential(*segment) for segment in segments]


def _contexts(segment: nn.Module) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
    """Return what surrounds a segment's first computation and its repetition."""
    first = FirstPass(segment)
    return first, Repetition(first)
