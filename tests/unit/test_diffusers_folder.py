"""Folders of trained diffusion models, opened by diffusers in a process that knows nothing of this project."""

import json
import os
import site
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models import AutoencoderKL
from transformers import AutoTokenizer

from stages.generators.diffusion import generator as diffusion
from stages.generators.diffusion.generator import DiffusionGenerator
from stages.generators.diffusion.layout import stock_class, write_pipeline
from stages.generators.diffusion.pipeline import NoiseToPicturePipeline
from stages.generators.diffusion.sampler import Decoder
from stages.generators.diffusion.text import open_text_encoder
from stages.generators.interface import Request
from stages.generators.noise import latents
from stages.networks.diffusion import build_denoiser
from tests.unit.test_text_encoder import LENGTH, WIDTH, save_tiny_bert

COUNT, SEED = 2, 7
CLASSES = {"condition": "class", "class_names": ["cat", "dog", "face"]}
FLOW = {"prediction": "flow", "sampler": "flow_euler"}
SMALL = {"widths": [8], "attention": [True]}
LATENT = {"latent_shape": [4, 8, 8], "resolution": 16}
NEGATIVE = "a red dog"

PLAIN: dict[str, Any] = {
    "family": "diffusion",
    "denoiser": "unet",
    "widths": [8, 16],
    "layers": 1,
    "attention": [False, True],
    "head_width": 8,
    "heads": 2,
    "patch": 2,
    "dropout": 0.1,
    "prediction": "epsilon",
    "schedule": "linear",
    "zero_terminal_snr": False,
    "condition": "none",
    "condition_dropout": 0.1,
    "sampler": "ddim",
    "steps": 4,
    "guidance": 1.0,
    "latent_shape": [3, 8, 8],
    "resolution": 8,
    "channels": 3,
    "class_names": [],
    "text": {"length": LENGTH, "prompts": ["a red cat", "dog"], "negative": NEGATIVE},
    "text_width": WIDTH,
}
MODELS: dict[str, dict[str, Any]] = {
    "pixels": PLAIN | {"prediction": "v"},
    "latents": PLAIN | LATENT | {"sampler": "euler"},
    "classes": PLAIN | LATENT | FLOW | CLASSES | {"guidance": 2.0, "shift": 0.3},
    "text": PLAIN | SMALL | {"prediction": "v", "sampler": "dpm++", "condition": "text", "guidance": 3.0},
    "dit": PLAIN | FLOW | CLASSES | {"denoiser": "dit", "layers": 2},
    "dit_alone": PLAIN | {"denoiser": "dit", "prediction": "v", "sampler": "heun"},
    "ancestral": PLAIN | SMALL | {"prediction": "v", "sampler": "ddpm"},
}
STOCK = {"pixels": "DDIMPipeline", "latents": "LDMPipeline"}
ASKED: dict[str, dict[str, Any]] = {  # of pipeline.py, by its own names
    "classes": {"class_labels": [2, -1]},
    "text": {"prompt": ["a smiling face", ""]},
    "dit": {"class_labels": [0, 1], "guidance_scale": 1.5},
}

STRANGER = """
import importlib.util, json, sys
from pathlib import Path

sys.path += sys.argv[2:]
assert importlib.util.find_spec("stages") is None
import numpy as np, torch
from diffusers import DiffusionPipeline

torch.set_num_threads(1)
root, told = Path(sys.argv[1]), {}
for name, job in json.loads((root / "jobs.json").read_text()).items():
    try:
        pipe = DiffusionPipeline.from_pretrained(root / name)
    except ValueError as error:
        told[name] = str(error)
        pipe = DiffusionPipeline.from_pretrained(root / name, trust_remote_code=True)
    pipe.set_progress_bar_config(disable=True)
    if job["stock"]:
        asked = {"batch_size": job["count"], "generator": torch.Generator().manual_seed(job["seed"])}
        asked["num_inference_steps"] = job["steps"]
    else:
        asked = {"latents": np.load(root / f"{name}.noise.npy"), **job["asked"]}
    np.save(root / f"{name}.drawn.npy", pipe(output_type="np", **asked).images)
    told[name + " class"] = type(pipe).__name__
(root / "told.json").write_text(json.dumps(told))
"""


def decoder_of(config: dict[str, Any]) -> Decoder:
    """Return a random decoder of factor 2 for latents of 4 channels, none for pixels."""
    if config["latent_shape"][0] == config["channels"]:
        return Decoder(None)
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": 4, "sample_size": 16}
    scaling = {"scaling_factor": 0.7, "shift_factor": config.get("shift")}
    return Decoder(AutoencoderKL(**kinds, **sizes, **scaling).eval())


@cache
def make_generator(name: str, folder: Path) -> DiffusionGenerator:
    """Return a model with random weights everywhere: a transformer's zero layers would say the same to anything."""
    config = MODELS[name]
    torch.manual_seed(3)
    denoiser = build_denoiser(config).eval()
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    text = open_text_encoder(str(save_tiny_bert(folder / "bert")), LENGTH) if config["condition"] == "text" else None
    return DiffusionGenerator(denoiser, decoder_of(config), config, text)


def write(generator: DiffusionGenerator, folder: Path) -> list[str]:
    return write_pipeline(folder, generator.denoiser, generator.decoder.autoencoder, generator.text, generator.config)


def noise_of(name: str, generator: DiffusionGenerator) -> np.ndarray:
    """Return noise of two pictures, which stock pipelines draw by torch's generator."""
    if name not in STOCK:
        return latents(range(COUNT), generator.capabilities.latent_shape)
    shape = (COUNT, *generator.capabilities.latent_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).numpy()


def request_of(name: str, generator: DiffusionGenerator) -> Request:
    asked = ASKED.get(name, {})
    label = {"label": np.array(asked["class_labels"], np.int64)} if "class_labels" in asked else {}
    noise = noise_of(name, generator)
    return Request(noise, label, asked.get("prompt", ()), guidance=asked.get("guidance_scale"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """Every model as a folder, with the pictures that a foreign process drew from it."""
    root, jobs = tmp_path_factory.mktemp("folders"), {}
    for name in MODELS:
        generator = make_generator(name, home)
        write(generator, root / name)
        np.save(root / f"{name}.noise.npy", noise_of(name, generator))
        job = {"stock": name in STOCK, "steps": generator.config["steps"], "asked": ASKED.get(name, {})}
        jobs[name] = job | {"count": COUNT, "seed": SEED}
    (root / "jobs.json").write_text(json.dumps(jobs))
    environment = os.environ | {"HF_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "1"}
    # -S: an editable install of this project, which a .pth file announces, is not seen
    command = [sys.executable, "-I", "-S", "-c", STRANGER, str(root), *site.getsitepackages()]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def told(root: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((root / "told.json").read_text())
    return found


@pytest.mark.parametrize("name", MODELS)
def test_a_stranger_draws_the_same_picture_for_the_same_noise(name, root, home):
    generator = make_generator(name, home)
    expected = generator.generate(request_of(name, generator)).transpose(0, 2, 3, 1) / 2 + 0.5
    drawn = np.load(root / f"{name}.drawn.npy")
    inside = (expected > 0) & (expected < 1)
    assert inside.mean() > 0.1  # else clipping would hide differences
    assert expected.std() > 0.02
    assert not np.allclose(expected[0], expected[1], atol=0.02)
    np.testing.assert_allclose(drawn, expected, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_code_lies_in_the_folder_only_where_no_class_of_diffusers_fits(name, root, told):
    assert told[f"{name} class"] == STOCK.get(name, "NoiseToPicturePipeline")
    assert (root / name / "pipeline.py").exists() == (name not in STOCK)


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(STOCK)))
def test_code_is_not_run_unless_it_is_trusted(name, told):
    assert "trust_remote_code=True" in told[name]


@pytest.mark.parametrize("name", sorted(STOCK))
def test_a_stock_class_needs_no_trust(name, told):
    assert name not in told


@pytest.mark.parametrize("name", MODELS)
def test_the_project_opens_its_own_folder_again(name, root, home):
    generator = make_generator(name, home)
    request = request_of(name, generator)
    opened = diffusion.load(root / name, generator.config)
    np.testing.assert_allclose(opened.generate(request), generator.generate(request), atol=1e-6)


def test_the_files_that_hold_weights_are_named(tmp_path, home):
    names = write(make_generator("text", home), tmp_path)
    assert names == ["text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors"]
    names = write(make_generator("latents", home), tmp_path / "latents")
    assert names == [f"{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vqvae")]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["classes", "text"])
def test_no_file_tells_where_a_network_was_read(name, root, tmp_path, home):
    config = make_generator(name, home).config
    write(diffusion.load(root / name, config), tmp_path / "again")
    for path in (tmp_path / "again").rglob("*.json"):
        assert str(root) not in path.read_text(), path
    assert contents(tmp_path / "again") == contents(root / name)


SHIFTED = AutoencoderKL(norm_num_groups=1, block_out_channels=(4,), shift_factor=0.1)
UNSHIFTED = AutoencoderKL(norm_num_groups=1, block_out_channels=(4,))


@pytest.mark.parametrize(
    ("autoencoder", "changed", "expected"),
    [
        (None, {}, "DDIMPipeline"),
        (None, {"prediction": "v"}, "DDIMPipeline"),
        (None, {"sampler": "dpm++"}, None),
        (None, {"sampler": "ddpm"}, None),
        (None, FLOW, None),
        (None, CLASSES, None),
        (None, {"denoiser": "dit"}, None),
        (UNSHIFTED, {"sampler": "dpm++"}, "LDMPipeline"),
        (UNSHIFTED, {"sampler": "ddpm"}, None),
        (UNSHIFTED, FLOW, None),
        (SHIFTED, {}, None),
    ],
)
def test_a_stock_class_is_taken_only_if_it_draws_the_same(autoencoder, changed, expected):
    assert stock_class(autoencoder, PLAIN | changed) == expected


@pytest.fixture(scope="module")
def pipes(root: Path) -> dict[str, NoiseToPicturePipeline]:
    text, dit = (diffusion.load(root / name, MODELS[name]) for name in ("text", "dit"))
    assert text.text is not None
    tokenizer = AutoTokenizer.from_pretrained(root / "text/tokenizer")
    reader = {"text_encoder": text.text.network.model, "tokenizer": tokenizer}
    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    names = {0: "a", 1: "b", 2: "c"}
    parts = {
        "text": {"unet": text.denoiser.network, **reader},
        "classes": {"transformer": dit.denoiser.network, "id2label": names},
        "none": {"transformer": dit.denoiser.network},
    }
    made = {name: NoiseToPicturePipeline(scheduler, steps=2, **given) for name, given in parts.items()}
    for pipe in made.values():
        pipe.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("classes", {"class_labels": 3}, r"class_labels: found \[3\], expected 1 of -1 to 2"),
        ("classes", {"class_labels": [0, 1]}, r"class_labels: found \[0, 1\], expected 1"),
        ("classes", {"prompt": "a cat"}, "takes none"),
        (
            "classes",
            {"latents": torch.zeros(1, 3, 8, 9)},
            r"latents: found shape \(1, 3, 8, 9\), expected \(N, 3, 8, 8\)",
        ),
        ("text", {"class_labels": 0}, "has no classes"),
        ("text", {"prompt": "a dog a dog a dog a dog"}, "prompt: found 1 of 10 tokens, expected 1 of 8"),
        ("text", {"prompt": ["a", "dog"]}, "prompt: found 2 of 8 tokens, expected 1 of 8"),
        ("none", {"guidance_scale": 2.0}, "no condition to be guided by"),
    ],
)
def test_the_pipeline_refuses_what_its_networks_do_not_take(name, asked, message, pipes):
    with pytest.raises(ValueError, match=message):
        pipes[name](**asked)


def test_the_pipeline_returns_pictures_in_the_form_that_is_asked(pipes):
    noise = latents(range(2), (3, 8, 8))
    asked = {"latents": noise, "class_labels": 1}
    arrays = pipes["classes"](**asked, output_type="np").images
    tensors = pipes["classes"](**asked, output_type="pt", return_dict=False)[0]
    pictures = pipes["classes"](**asked).images
    assert arrays.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(tensors.permute(0, 2, 3, 1).numpy(), arrays)
    np.testing.assert_array_equal(np.asarray(pictures[1]), (arrays[1] * 255).round().astype(np.uint8))


def test_a_negative_prompt_replaces_the_one_of_the_folder(pipes):
    asked = {"latents": latents(range(1), (3, 8, 8)), "prompt": "a cat", "guidance_scale": 4.0, "output_type": "np"}
    default, other = (pipes["text"](**asked, negative_prompt=said).images for said in (None, "a smiling dog"))
    assert np.abs(default - other).max() > 1e-4
    np.testing.assert_array_equal(pipes["text"](**asked, negative_prompt="").images, default)


def test_noise_is_drawn_where_none_is_given(pipes):
    shapes = {count: pipes["none"](batch_size=count, output_type="np").images.shape for count in (1, 3)}
    assert shapes == {1: (1, 8, 8, 3), 3: (3, 8, 8, 3)}
