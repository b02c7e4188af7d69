"""Denoisers: diffusers' U-Nets and diffusion transformer, called alike whatever they are conditioned on."""

from pathlib import Path
from typing import Any

from diffusers.models import DiTTransformer2DModel, UNet2DConditionModel, UNet2DModel
from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings
from torch import Tensor, nn

GROUPS = 8  # of group normalisation
FOLDERS = {"unet": "unet", "dit": "transformer"}  # the names of diffusers' pipelines


class Denoiser(nn.Module):
    """A diffusers network that is called with a sample, its timesteps, and the condition it was built for.

    Classes have one more label than the data, the last, which stands for no class.
    """

    def __init__(self, network: nn.Module, condition: str) -> None:
        super().__init__()
        self.network: Any = network
        self.condition = condition

    def forward(self, sample: Tensor, timestep: Tensor, *condition: Tensor) -> Tensor:
        """Return the prediction, shape (N, C, H, W), for samples (N, C, H, W) at timesteps (N,) in [0, 1000].

        `condition` is nothing, labels int64 (N,), or token embeddings (N, L, D) and their mask (N, L).
        """
        out: Tensor
        if self.condition == "text":
            embeddings, mask = condition
            (out,) = self.network(sample, timestep, embeddings, encoder_attention_mask=mask.bool(), return_dict=False)
        elif self.condition == "class" or isinstance(self.network, DiTTransformer2DModel):
            labels = condition[0] if condition else timestep.long() * 0
            named = {"class_labels": labels, "return_dict": False}
            (out,) = self.network(sample, timestep=timestep, **named)
        else:
            (out,) = self.network(sample, timestep, return_dict=False)
        return out


def build_denoiser(config: dict[str, Any]) -> Denoiser:
    """Return a denoiser with fresh weights for `latent_shape` (C, S, S) and the settings of `config`."""
    network: nn.Module
    if config["denoiser"] == "dit":
        network = _build_transformer(config)
    elif config["condition"] == "text":
        network = _build_text_unet(config)
    else:
        network = _build_unet(config)
    return Denoiser(network, config["condition"])


def load_denoiser(weights: Path, config: dict[str, Any]) -> Denoiser:
    """Return the denoiser that was saved in diffusers' layout, float32."""
    if config["denoiser"] == "dit":
        kind: Any = DiTTransformer2DModel
    else:
        kind = UNet2DConditionModel if config["condition"] == "text" else UNet2DModel
    network = kind.from_pretrained(weights / FOLDERS[config["denoiser"]], local_files_only=True)
    return Denoiser(_without_dropout(network), config["condition"])


def _levels(config: dict[str, Any], plain: str, attending: str) -> tuple[str, ...]:
    return tuple(attending if attends else plain for attends in config["attention"])


def _shape(config: dict[str, Any]) -> dict[str, int]:
    channels, side, _ = config["latent_shape"]
    return {"sample_size": side, "in_channels": channels, "out_channels": channels}


def _build_unet(config: dict[str, Any]) -> UNet2DModel:
    labels = len(config["class_names"]) + 1 if config["condition"] == "class" else None
    return UNet2DModel(
        **_shape(config),
        block_out_channels=tuple(config["widths"]),
        layers_per_block=config["layers"],
        down_block_types=_levels(config, "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=_levels(config, "UpBlock2D", "AttnUpBlock2D")[::-1],
        add_attention=any(config["attention"]),
        attention_head_dim=config["head_width"],
        norm_num_groups=GROUPS,
        dropout=config["dropout"],
        num_class_embeds=labels,
    )


def _build_text_unet(config: dict[str, Any]) -> UNet2DConditionModel:
    heads = tuple(max(1, width // config["head_width"]) for width in config["widths"])
    return UNet2DConditionModel(
        **_shape(config),
        block_out_channels=tuple(config["widths"]),
        layers_per_block=config["layers"],
        down_block_types=_levels(config, "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=_levels(config, "UpBlock2D", "CrossAttnUpBlock2D")[::-1],
        attention_head_dim=heads,  # diffusers' name for what is the number of heads
        cross_attention_dim=config["text_width"],
        norm_num_groups=GROUPS,
        dropout=config["dropout"],
    )


def _build_transformer(config: dict[str, Any]) -> nn.Module:
    network: nn.Module = DiTTransformer2DModel(
        **_shape(config),
        num_attention_heads=config["heads"],
        attention_head_dim=config["head_width"],
        num_layers=config["layers"],
        patch_size=config["patch"],
        num_embeds_ada_norm=max(1, len(config["class_names"])),
        dropout=config["dropout"],
    )
    prepared: nn.Module = _zero_gates(_without_dropout(network))
    return prepared


def _zero_gates(network: Any) -> Any:
    """Begin with blocks that change nothing and a prediction of zero: adaLN-zero (Peebles 2023, section 3.2).

    diffusers leaves these layers as torch initialises any other.
    """
    gates = [block.norm1.linear for block in network.transformer_blocks]
    for layer in (*gates, network.proj_out_1, network.proj_out_2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return network


def _without_dropout(network: Any) -> Any:
    """Switch off the transformer's own hiding of labels, which draws from torch's global random numbers."""
    for module in network.modules():
        if isinstance(module, CombinedTimestepLabelEmbeddings):
            module.class_embedder.dropout_prob = 0.0
    return network
