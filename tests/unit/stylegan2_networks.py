"""Tiny StyleGAN2 networks for tests."""

import torch
from torch import nn

from stages.networks.stylegan2 import Discriminator, Generator, build_discriminator, build_generator

LABEL = torch.tensor([0, 1, 2, 1])


def config(**changes) -> dict:
    """Settings of networks that cost nothing."""
    return {
        "resolution": 16,
        "channels": 3,
        "class_names": [],
        "latent": 6,
        "style_width": 5,
        "mapping_layers": 2,
        "channel_base": 64,
        "channel_max": 8,
        "discriminator_architecture": "resnet",
        "conv_clamp": None,
        "spectral_norm": False,
        "minibatch_stddev": True,
        "minibatch_kernels": 0,
        "minibatch_group": 2,
        "dropout": 0.0,
    } | changes


def conditional(**changes) -> dict:
    return config(class_names=["a", "b", "c"], **changes)


def generator(settings: dict, seed: int = 0) -> Generator:
    torch.manual_seed(seed)
    return build_generator(settings)


def discriminator(settings: dict, seed: int = 0) -> Discriminator:
    torch.manual_seed(seed)
    return build_discriminator(settings)


def heard(network: Generator, strength: float = 0.5) -> Generator:
    """The same generator with noise that can be seen and a mean style that is none of zeros."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(strength)
        network.mapping.w_avg.normal_()
    return network


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}
