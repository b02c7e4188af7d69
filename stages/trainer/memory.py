"""Less memory for the same step: activations that are computed twice instead of kept, and batches in parts."""

import contextlib
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class FrozenMoments:
    """Puts a network's buffers, such as batch norm's running moments, back after a block; may be entered again."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.kept: list[tuple[Tensor, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = [(buffer, buffer.clone()) for buffer in self.network.buffers()]

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for buffer, before in self.kept:
                buffer.copy_(before)
        self.kept = []


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

    block.forward = forward  # type: ignore[method-assign]


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
    return contextlib.nullcontext(), FrozenMoments(segment)
