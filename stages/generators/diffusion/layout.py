"""A diffusion model as folders: one that diffusers opens, and what lies beside its graphs in ONNX."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import diffusers

from stages.generators.diffusion import numpy_sampler
from stages.generators.diffusion.components import components_of, sampling_of
from stages.generators.diffusion.generator import TOKENS, DiffusionGenerator, schedule_of
from stages.generators.diffusion.schedules import build_scheduler
from stages.generators.diffusion.text import TOKENIZER_FOLDER, save_text_encoder
from stages.networks.diffusion import FOLDERS, Denoiser
from stages.storage import write_bytes, write_json

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL

    from stages.generators.diffusion.text import TextEncoder

CODE = Path(__file__).with_name("pipeline.py")
OWN_CLASS = "NoiseToPicturePipeline"  # in CODE
INDEX = "model_index.json"
GRAPH = ["diffusers", "OnnxRuntimeModel"]
TOKENIZER = ["transformers", "PreTrainedTokenizerFast"]
ORIGIN = "_name_or_path"  # where a network was read from: a path of this machine


def write_pipeline(
    folder: Path,
    denoiser: Denoiser,
    autoencoder: "AutoencoderKL | None",
    text: "TextEncoder | None",
    config: dict[str, Any],
) -> list[str]:
    """Write all that DiffusionPipeline.from_pretrained(folder) reads; returns the names of the files that hold weights.

    Where no pipeline class of diffusers fits, `pipeline.py` is written too, and loading needs trust_remote_code=True.
    """
    stock = stock_class(autoencoder, config)
    parts: dict[str, Any] = {FOLDERS[config["denoiser"]]: denoiser.network}
    if autoencoder is not None:
        parts["vqvae" if stock == "LDMPipeline" else "vae"] = autoencoder
    for name, network in parts.items():
        network.save_pretrained(folder / name)
        _write_config(network, folder / name)
    scheduler = build_scheduler(schedule_of(config), config["sampler"])
    scheduler.save_pretrained(folder / "scheduler")
    index = {name: ["diffusers", type(part).__name__] for name, part in (*parts.items(), ("scheduler", scheduler))}
    if text is not None:
        save_text_encoder(text, folder)
        index |= {"text_encoder": ["transformers", type(text.network.model).__name__], "tokenizer": TOKENIZER}
    if stock is None:
        shutil.copyfile(CODE, folder / CODE.name)
        index |= _defaults(config)
    _write_index(folder, stock or [CODE.stem, OWN_CLASS], index)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))


def stock_class(autoencoder: "AutoencoderKL | None", config: dict[str, Any]) -> str | None:
    """Return the name of diffusers' own pipeline class that draws as the model does, None where there is none.

    DDIMPipeline neither scales the noise nor what the network sees; LDMPipeline does, but knows no shift of latents.
    Both know a U-Net without a condition only, and no flow; that DDIM adds noise would have to be asked at each call.
    """
    plain = config["denoiser"] == "unet" and config["condition"] == "none" and config["prediction"] != "flow"
    if not plain or config["sampler"] == "ddpm":
        return None
    if autoencoder is None:
        return "DDIMPipeline" if config["sampler"] == "ddim" else None
    return None if autoencoder.config["shift_factor"] else "LDMPipeline"


def write_layout(folder: Path, generator: DiffusionGenerator) -> None:
    """Write what lies beside the graphs: configs, index, scheduler, tokenizer, trajectory.json and numpy_sampler.py."""
    config, parts = generator.config, components_of(generator)
    scheduler = build_scheduler(schedule_of(config), config["sampler"])
    scheduler.save_pretrained(folder / "scheduler")
    index: dict[str, Any] = dict.fromkeys(parts, GRAPH) | {"scheduler": ["diffusers", type(scheduler).__name__]}
    _write_config(generator.denoiser.network, folder / FOLDERS[config["denoiser"]])
    if generator.decoder.autoencoder is not None:
        _write_config(generator.decoder.autoencoder, folder / "vae_decoder")
    if generator.text is not None:
        encoder: Any = generator.text.network.model
        _write_config(encoder.config, folder / "text_encoder")
        _write_tokenizer(generator.text, folder / TOKENIZER_FOLDER)
        index["tokenizer"] = TOKENIZER
    _write_index(folder, "DiffusionPipeline", index)
    write_json(folder / "trajectory.json", sampling_of(generator))
    shutil.copyfile(numpy_sampler.__file__, folder / "numpy_sampler.py")


def _defaults(config: dict[str, Any]) -> dict[str, Any]:
    """Return what the class of pipeline.py keeps beside its networks."""
    named = config["class_names"] if config["condition"] == "class" else []
    guided = config["condition"] != "none" and config["condition_dropout"] > 0
    return {
        "steps": config["steps"],
        "guidance_scale": float(config["guidance"]) if guided else 1.0,
        "eta": 1.0 if config["sampler"] == "ddpm" else 0.0,
        "id2label": {str(number): name for number, name in enumerate(named)},
        "negative_prompt": config["text"]["negative"] if config["condition"] == "text" else "",
    }


def _write_tokenizer(text: "TextEncoder", folder: Path) -> None:
    """Write a tokenizer as transformers' AutoTokenizer reads it."""
    padding = text.tokenizer.padding
    config = {
        "tokenizer_class": TOKENIZER[1],
        "pad_token": padding["pad_token"],
        "padding_side": padding["direction"],
        "model_max_length": text.length,
        "model_input_names": list(TOKENS),
    }
    write_bytes(folder / "tokenizer.json", text.tokenizer.to_json().encode())
    write_json(folder / "tokenizer_config.json", config)


def _write_index(folder: Path, class_name: str | list[str], index: dict[str, Any]) -> None:
    head = {"_class_name": class_name, "_diffusers_version": diffusers.__version__}
    write_json(folder / INDEX, head | dict(sorted(index.items())))


def _write_config(network: Any, folder: Path) -> None:
    config = json.loads(network.to_json_string())
    write_json(folder / "config.json", {key: value for key, value in config.items() if key != ORIGIN})
