"""Batch norm's moments of the generator that is shipped, measured on pictures of its own (Brock 2019, section 4.1)."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from stages.networks.contract import GeneratorNetwork
from stages.trainer.adversarial.inputs import InputSource, draw_pictures


@torch.no_grad()
def measure_moments(network: GeneratorNetwork, inputs: InputSource, batch: int, batches: int, parts: int) -> None:
    """Replace, in place, all running moments by their means over so many batches, drawn in parts.

    The network ends in evaluation mode.

    Averaged weights never had moments of their own: those of the training belong to other weights.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over all batches
        norm.train()
    for number in range(batches):
        for part in inputs.draw(batch, number, "standing statistics").parts(parts):
            draw_pictures(network, part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
