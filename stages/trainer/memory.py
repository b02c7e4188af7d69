"""Less memory for the same step: activations that are computed twice instead of kept, and batches in parts."""

import contextlib
import math
from functools import partial

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

    Running moments take each batch once, and the result is the same.
    """
    layers = network.layers
    if not isinstance(layers, nn.Sequential):
        raise TypeError(f"{type(network).__name__}.layers is no nn.Sequential")
    segments = cut_layers(list(layers))

    def forward(value: Tensor) -> Tensor:
        for segment in segments:
            contexts = partial(_contexts, segment)
            value = checkpoint(segment, value, use_reentrant=False, context_fn=contexts)
        return value

    layers.forward = forward  # type: ignore[method-assign]


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
