"""Settings of diffusion models: each impossible combination is one line that says what is found and expected."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.errors import InputError
from stages.settings import load_preset, load_settings
from stages.settings.base import validated
from stages.settings.diffusion import DiffusionSettings
from tests.conftest import ROOT, tiny_params
from tests.unit.denoising import TINY, settings_of

DDIM = {"prediction": "epsilon", "sampler": "ddim"}
VELOCITY = {"prediction": "v", "sampler": "ddim", "zero_terminal_snr": True}
CLASS = {"condition": "class", "guidance": 2.0}


def refused(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        validated(DiffusionSettings, TINY | changes, "models.mine")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("models.mine")
    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": "ddim"}, ("sampler is ddim", "prediction flow is sampled by flow_euler")),
        (DDIM | {"sampler": "flow_euler"}, ("sampler is flow_euler", "prediction epsilon", "ddpm, ddim, dpm++, euler")),
        (DDIM | {"sampler": "plms"}, ("models.mine.sampler is 'plms'", "'ddim'")),
        (DDIM | {"zero_terminal_snr": True}, ("zero_terminal_snr needs prediction v, not epsilon",)),
        ({"zero_terminal_snr": True}, ("zero_terminal_snr needs prediction v, not flow",)),
        (VELOCITY | {"sampler": "heun"}, ("zero_terminal_snr cannot be sampled by heun", "ddim")),
        (DDIM | {"sampler": "heun", "schedule": "cosine"}, ("schedule cosine cannot be sampled by heun", "dpm++")),
        (DDIM | {"steps": 30}, ("steps is 30", "ddim needs a divisor of 1000 such as 25 or 40")),
        (DDIM | {"sampler": "ddpm", "steps": 999}, ("steps is 999", "ddpm", "500 or 1000")),
        ({"steps": 1001}, ("models.mine.steps is 1001",)),
        ({"attention": [True]}, ("attention has 1 levels, widths has 2",)),
        ({"widths": [8, 12]}, ("models.mine.widths is [8, 12]", "multiples of 8")),
        ({"widths": [], "attention": []}, ("models.mine.widths is []", "at least one")),
        ({"head_width": 32}, ("head_width is 32", "a level with attention: 16 channels")),
        ({"widths": [32, 8], "attention": [True, False], "head_width": 16}, ("head_width is 16", "8 channels")),
        ({"guidance": 3.0}, ("guidance is 3.0", "needs a condition and condition_dropout above 0")),
        (CLASS | {"condition_dropout": 0}, ("guidance is 2.0", "condition_dropout above 0")),
        ({"denoiser": "dit", "condition": "text"}, ("denoiser dit takes condition none or class", "unet")),
        ({"ema_also_kimg": [0.05]}, ("ema_also_kimg needs score_kimg",)),
        ({"condition_dropout": 1.5}, ("models.mine.condition_dropout is 1.5",)),
        ({"text": {"lenght": 8}}, ("models.mine.text.lenght: unknown setting", "encoder, length, prompts, negative")),
        ({"prediction": "x0"}, ("models.mine.prediction is 'x0'", "'epsilon', 'v' or 'flow'")),
        ({"dropout": 1.0}, ("models.mine.dropout is 1.0",)),
        ({"lr": 0}, ("models.mine.lr is 0",)),
    ],
)
def test_what_contradicts_itself_is_named_with_what_is_expected(changes, words):
    message = refused(**changes)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "changes",
    [
        DDIM | {"steps": 40},
        DDIM | {"sampler": "dpm++", "steps": 30},
        DDIM | {"sampler": "heun"},
        VELOCITY,
        CLASS,
        {"head_width": 32, "attention": [False, False]},
        {"head_width": 32, "condition": "text"},
        {"head_width": 32, "denoiser": "dit"},
        {"denoiser": "dit", "condition": "class"},
        {"ema_also_kimg": [0.05], "score_kimg": 0.1},
    ],
)
def test_what_fits_is_accepted(changes):
    assert settings_of(**changes).family == "diffusion"


@pytest.mark.parametrize(
    ("changes", "side", "words"),
    [
        ({}, 9, ("2 widths", "9 wide, no multiple of 2")),
        ({"widths": [8] * 5, "attention": [False] * 5}, 8, ("5 widths", "8 wide, no multiple of 16")),
        ({"denoiser": "dit", "patch": 4}, 10, ("patch 4", "10 wide, no multiple of 4")),
    ],
)
def test_sizes_that_do_not_halve_are_refused(changes, side, words):
    with pytest.raises(InputError) as caught:
        settings_of(**changes).check_size("models.mine", side)
    for word in ("models.mine", *words):
        assert word in str(caught.value)
    settings_of(**changes).check_size("models.mine", 16)


@pytest.mark.parametrize("changes", [{"ema_half_life_kimg": 0.2}, {"ema_also_kimg": [0.2], "score_kimg": 0.05}])
def test_an_average_longer_than_the_run_is_refused_the_further_ones_too(changes):
    with pytest.raises(InputError, match=r"0\.2, longer than the whole training of 0\.1 kimg"):
        settings_of(**changes).check("models.mine", 16)
    settings_of().check("models.mine", 16)


@pytest.mark.parametrize("preset", ["ddpm", "ldm", "dit"])
def test_presets_are_whole_and_fit_32_pixels(preset):
    settings = DiffusionSettings.model_validate(load_preset(preset))
    settings.check("models.mine", 32)
    settings.check_size("models.mine", 32)


def load(tmp_path: Path, change: Any) -> None:
    params = tiny_params()
    params["select"]["mine"] = {"preset": "ddpm", "family": "diffusion", "data": "images"}
    params["models"]["mine"] = {}
    change(params)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    load_settings(path)


def in_latents(params: dict, of: str = "kl", **autoencoder: Any) -> dict:
    params["select"]["mine"]["data"] = f"latents/{of}"
    params["encode"] = [of]
    params["autoencoders"] = {of: {"factor": 2, "widths": [8, 8]} | autoencoder}
    return params


def test_pixels_and_latents_of_an_encoded_autoencoder_are_accepted(tmp_path):
    load(tmp_path, lambda p: None)
    load(tmp_path, lambda p: in_latents(p)["models"]["mine"].update(widths=[32], attention=[False]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p.update(encode=["kl"]), ("encode is ['kl']", "latents of none")),
        (lambda p: in_latents(p).update(encode=[]), ("encode is []", "latents of ['kl']", "each once")),
        (lambda p: in_latents(p).update(encode=["kl", "kl"]), ("encode is ['kl', 'kl']", "each once")),
        (lambda p: in_latents(p).update(autoencoders={}), ("encode has kl", "autoencoders does not describe")),
        (lambda p: in_latents(p, "a/b"), ("encode has a/b", "letters, digits")),
        (
            lambda p: in_latents(p)["select"]["dcgan"].update(data="latents/kl"),
            ("select.dcgan.data is latents/kl", "family dcgan: images"),
        ),
        (lambda p: p["select"]["mine"].update(data="pictures"), ("select.mine.data is pictures", "diffusion: images")),
        (lambda p: p["select"]["mine"].update(family="dcgan"), ("select.mine.family is dcgan", "preset ddpm")),
        (
            lambda p: in_latents(p, factor=8, widths=[8] * 4)["models"]["mine"].update(budget_kimg=600),
            ("models.mine has 3 widths", "2 wide, no multiple of 4"),
        ),
        (
            lambda p: p["models"]["mine"].update(budget_kimg=100),
            ("models.mine.ema_half_life_kimg is 500", "100.0 kimg"),
        ),
        (lambda p: p["models"]["mine"].update(steps=7), ("models.mine", "steps is 7", "5 or 8")),
    ],
)
def test_what_does_not_belong_together_in_params_is_refused_in_one_line(tmp_path, change, words):
    with pytest.raises(InputError) as caught:
        load(tmp_path, change)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_settings_of_diffusion_are_read_without_heavy_imports():
    code = """
import sys
from stages.settings import load_settings
load_settings()
heavy = {"torch", "diffusers", "transformers", "mlflow", "pandas", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
