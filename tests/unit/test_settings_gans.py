"""GAN presets against the numbers of papers and official code, and settings that contradict one another."""

from typing import Any

import pytest
import yaml

from stages.errors import InputError
from stages.settings.base import validated
from stages.settings.gans import GANS, GanSettings
from stages.settings.models import PRESETS, load_preset
from tests.unit.gans import tiny

FITTING = {"biggan": 128, "r3gan": 32, "r3gan_ffhq64": 64, "r3gan_ffhq256": 256}  # px; others: 32


def resolved(preset: str, resolution: int = 32, **changes: Any) -> GanSettings:
    """Return a preset's settings at a resolution, as params.yaml would give them, checked."""
    merged = {**load_preset(preset), **changes}
    kind = GANS[merged["family"]]
    settings = validated(kind, kind.completed(merged, resolution), "models.mine")
    settings.check("models.mine", resolution)
    return settings


def refused(preset: str, resolution: int = 32, **changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        resolved(preset, resolution, **changes)
    message = str(caught.value)
    assert "\n" not in message
    return message


def gan_presets() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml") if load_preset(path.stem)["family"] in GANS)


@pytest.mark.parametrize("preset", gan_presets())
def test_every_preset_is_valid_and_its_own_network_file_exists(preset: str):
    settings = resolved(preset, FITTING.get(preset, 32))
    assert (PRESETS.parent / "networks" / f"{settings.family}.py").is_file()
    assert (PRESETS / f"{preset}.yaml").read_text().startswith("# ")  # its source


def test_the_issues_systems_are_there():
    systems = {"gan", "dcgan", "cgan", "lsgan", "wgan", "wgan_gp", "sngan", "progan", "biggan", "stylegan2", "r3gan"}
    configs = {f"stylegan2_{name}" for name in ("auto", "paper256", "paper512", "paper1024", "cifar")}
    assert systems | configs <= set(gan_presets())


# Table of Karras 2020 (limited data): batch, group, channels at 4 x 4 upwards, rates, gamma, half-life, ramp, mapping.
STYLEGAN = {
    "stylegan2": (25000, 32, 4, 32768, 0.002, 10, 10, 0, 8),
    "stylegan2_paper256": (25000, 64, 8, 16384, 0.0025, 1, 20, 0, 8),
    "stylegan2_paper512": (25000, 64, 8, 32768, 0.0025, 0.5, 20, 0, 8),
    "stylegan2_paper1024": (25000, 32, 4, 32768, 0.002, 2, 10, 0, 8),
    "stylegan2_cifar": (100000, 64, 32, 32768, 0.0025, 0.01, 500, 0.05, 2),
}


@pytest.mark.parametrize("preset", STYLEGAN)
def test_stylegan2s_presets_have_the_numbers_of_the_official_configs(preset: str):
    kimg, batch, group, base, rate, gamma, half_life, ramp, mapping = STYLEGAN[preset]
    found: Any = resolved(preset)
    assert (found.budget_kimg, found.batch, found.minibatch_group, found.channel_base) == (kimg, batch, group, base)
    assert (found.generator_lr, found.discriminator_lr, found.r1_gamma) == (rate, rate, gamma)
    assert (found.ema_half_life_kimg, found.ema_rampup, found.mapping_layers) == (half_life, ramp, mapping)


@pytest.mark.parametrize("preset", [*STYLEGAN, "stylegan2_auto"])
def test_what_all_of_stylegan2s_configs_have(preset: str):
    found: Any = resolved(preset)
    cifar = preset == "stylegan2_cifar"
    assert (found.latent, found.style_width, found.channel_max, found.minibatch_stddev) == (512, 512, 512, True)
    assert (found.beta1, found.beta2, found.objective) == (0, 0.99, "non_saturating")
    assert (found.regularise_every, found.path_length_every) == (16, 4)
    assert (found.path_length_decay, found.path_length_shrink) == (0.01, 2)
    assert (found.path_length, found.style_mixing) == ((0, 0) if cifar else (2, 0.9))
    assert found.discriminator_architecture == ("orig" if cifar else "resnet")
    assert (found.gradient_penalty, found.spectral_norm, found.discriminator_steps) == (0, False, 1)


# px: batch, group, channels, rate, gamma, half-life (research/generative.md, 3.2)
AUTO = {
    32: (32, 4, 16384, 0.0025, 0.0064, 10),
    64: (32, 4, 16384, 0.0025, 0.0256, 10),
    128: (32, 4, 16384, 0.0025, 0.1024, 10),
    256: (16, 4, 16384, 0.0025, 0.8192, 5),
    512: (8, 4, 32768, 0.0025, 6.5536, 2.5),
    1024: (4, 4, 32768, 0.002, 52.4288, 1.25),
}


@pytest.mark.parametrize("resolution", AUTO)
def test_the_config_auto_follows_the_resolution(resolution: int):
    batch, group, base, rate, gamma, half_life = AUTO[resolution]
    found: Any = resolved("stylegan2_auto", resolution)
    assert (found.batch, found.minibatch_group, found.channel_base) == (batch, group, base)
    assert (found.generator_lr, found.discriminator_lr) == (rate, rate)
    assert found.r1_gamma == pytest.approx(gamma)
    assert found.ema_half_life_kimg == half_life
    assert (found.ema_rampup, found.mapping_layers, found.budget_kimg) == (0.05, 2, 25000)


def test_what_is_set_beside_auto_is_obeyed_and_the_rest_follows_it():
    found: Any = resolved("stylegan2_auto", 64, batch=64, generator_lr=0.001)
    assert (found.batch, found.generator_lr, found.discriminator_lr) == (64, 0.001, 0.0025)
    assert found.r1_gamma == pytest.approx(0.0002 * 64**2 / 64)
    assert found.ema_half_life_kimg == 20
    assert resolved("stylegan2_auto", 64, batch=2).minibatch_group == 2
    assert "models.mine.batch is 'many'" in refused("stylegan2_auto", batch="many")
    assert "models.mine.batch is 0" in refused("stylegan2_auto", batch=0)


# widths, groups, batch, gamma at start and end, half-life at the end (kimg) (Huang 2024, table of research 3.4)
R3GAN = {
    "r3gan": ([768] * 4, [96] * 4, 512, 0.05, 0.005, 5000),
    "r3gan_ffhq64": ([768] * 4 + [384], [96] * 4 + [48], 256, 2, 0.2, 500),
    "r3gan_ffhq256": ([768] * 4 + [384, 192, 96], [96] * 4 + [48, 24, 12], 256, 150, 15, 500),
}


@pytest.mark.parametrize("preset", R3GAN)
def test_r3gans_presets_have_the_papers_numbers(preset: str):
    widths, groups, batch, start, end, half_life = R3GAN[preset]
    found: Any = resolved(preset, FITTING[preset])
    assert (found.widths, found.cardinalities, found.batch) == (widths, groups, batch)
    assert (found.r1_gamma, found.r2_gamma, found.regularise_every) == (start, start, 1)
    assert (found.generator_lr, found.discriminator_lr, found.beta1, found.beta2) == (0.0002, 0.0002, 0, 0.9)
    ends = found.anneal
    assert (ends.kimg, ends.lr, ends.gamma, ends.beta2) == (20000, 0.00005, end, 0.99)
    assert ends.ema_half_life_kimg == half_life
    assert (found.latent, found.blocks_per_stage, found.expansion, found.objective) == (64, 2, 2, "relativistic")
    assert (found.budget_kimg, found.minibatch_stddev, found.spectral_norm) == (20000, False, False)


# What each recipe is known by (research 3.6 and the papers named in the files)
RECIPES: dict[str, dict[str, Any]] = yaml.safe_load("""
gan: {objective: non_saturating, generator_lr: 0.0002, discriminator_lr: 0.0002, beta1: 0.5, batch: 64}
dcgan: {objective: non_saturating, generator_lr: 0.0002, discriminator_lr: 0.0002, beta1: 0.5, latent: 100, batch: 64}
cgan: {family: dcgan, condition: class, objective: non_saturating, generator_lr: 0.0002, beta1: 0.5}
lsgan: {family: dcgan, objective: least_squares, beta1: 0.5}
wgan: {objective: wasserstein, optimizer: rmsprop, generator_lr: 0.00005, discriminator_lr: 0.00005, weight_clip: 0.01,
  discriminator_steps: 5, gradient_penalty: 0, batch: 64}
wgan_gp: {objective: wasserstein, optimizer: adam, generator_lr: 0.0001, discriminator_lr: 0.0001, beta1: 0, beta2: 0.9,
  gradient_penalty: 10, discriminator_steps: 5, weight_clip: 0, discriminator_norm: layer}
sngan: {objective: hinge, spectral_norm: true, discriminator_steps: 5, generator_lr: 0.0002, discriminator_lr: 0.0002,
  beta1: 0, beta2: 0.9, batch: 64, latent: 128}
progan: {objective: wasserstein, gradient_penalty: 10, drift: 0.001, minibatch_stddev: true, generator_lr: 0.001,
  discriminator_lr: 0.001, beta1: 0, beta2: 0.99, latent: 512, channel_max: 512, channel_base: 8192,
  discriminator_steps: 1}
biggan: {objective: hinge, condition: class, spectral_norm: true, orthogonal: 0.0001, width: 96, discriminator_steps: 2,
  generator_lr: 0.00005, discriminator_lr: 0.0002, beta1: 0, beta2: 0.999, batch: 2048, latent: 120,
  shared_embedding: 128, attention: 64, standing_statistics: 16}
biggan_cifar: {batch: 50, discriminator_steps: 4, generator_lr: 0.0002, discriminator_lr: 0.0002, width: 64, beta1: 0,
  beta2: 0.999, orthogonal: 0, attention: 0, latent: 128}
""")


@pytest.mark.parametrize("preset", RECIPES)
def test_the_other_presets_have_the_numbers_of_their_papers(preset: str):
    found = resolved(preset, FITTING.get(preset, 32))
    assert {name: getattr(found, name) for name in RECIPES[preset]} == RECIPES[preset]


@pytest.mark.parametrize(
    ("preset", "changes", "words"),
    [
        (
            "stylegan2",
            {"precision": "fp16", "path_length": 0},
            "r1_gamma, r2_gamma and gradient_penalty need precision",
        ),
        ("stylegan2", {"precision": "fp16", "r1_gamma": 0, "regularise_every": 1}, "path_length needs precision"),
        ("wgan_gp", {"precision": "fp16"}, "need precision fp32 or bf16, not fp16"),
        ("wgan", {"label_smoothing": 0.1}, "label_smoothing belongs to .*hinge, not to objective wasserstein"),
        ("r3gan", {"label_smoothing": 0.1}, "label_smoothing belongs to .*, not to objective relativistic"),
        ("dcgan", {"regularise_every": 4}, "regularise_every is above 1, but no r1_gamma, r2_gamma or gradient"),
        ("r3gan", {"compile": True}, "compile cannot differentiate twice, which r1_gamma"),
        ("dcgan", {"compile": True, "r2_gamma": 1}, "compile cannot differentiate twice"),
        (
            "stylegan2",
            {"compile": True, "r1_gamma": 0, "regularise_every": 1},
            "compile cannot differentiate twice, which path_length needs",
        ),
        ("dcgan", {"batch_start": 8}, "batch_start and batch_ramp_kimg belong together"),
        ("dcgan", {"batch_ramp_kimg": 8}, "batch_start and batch_ramp_kimg belong together"),
        ("dcgan", {"batch_start": 7, "batch_ramp_kimg": 8}, "batch_start is 7; expected a divisor of batch 64"),
        ("dcgan", {"batch_start": 64, "batch_ramp_kimg": 8}, "batch_start is 64; expected a divisor of batch 64"),
        ("dcgan", {"transfer": {"sha256": "ab"}}, "transfer.sha256 names weights, but transfer.weights says not where"),
        ("dcgan", {"transfer": {"freeze_discriminator": 1}}, "freeze_discriminator would freeze random weights; set"),
        ("dcgan", {"gradient_penalty": 10}, "batch norm mixes .* set discriminator_norm to layer or none"),
        ("progan", {"budget_kimg": 3000}, "budget_kimg is 3000, but 32 px are whole after 3600 kimg .* at most 500$"),
        ("dcgan", {"ema_half_life_kimg": 4000}, "ema_half_life_kimg is 4000.* longer than the whole training"),
    ],
)
def test_contradictions_are_refused_by_name(preset: str, changes: dict[str, Any], words: str):
    with pytest.raises(InputError, match=rf"^models\.mine.*{words}"):
        resolved(preset, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"anneal": {"kimg": 0}}, "models.mine.anneal.kimg is 0"),
        (
            {"anneal": {"kimg": 9, "rate": 1}},
            "models.mine.anneal.rate: unknown setting; allowed: kimg, lr, gamma, beta2",
        ),
        (
            {"transfer": {"freeze": 1}},
            "models.mine.transfer.freeze: unknown setting; allowed: weights, sha256, freeze_",
        ),
        ({"style_mixing": 0.5}, "models.mine.style_mixing: unknown setting"),
        ({"minibatch_group": 1}, "models.mine.minibatch_group is 1"),
        ({"objective": "magic"}, "models.mine.objective is 'magic'"),
        ({"optimizer": "sgd"}, "models.mine.optimizer is 'sgd': Input should be 'adam' or 'rmsprop'"),
        ({"condition": "text"}, "models.mine.condition is 'text': Input should be 'none' or 'class'"),
    ],
)
def test_unknown_names_and_impossible_values_are_refused(changes: dict[str, Any], words: str):
    assert words in refused("dcgan", **changes)


@pytest.mark.parametrize(
    ("preset", "resolution", "words"),
    [
        ("gan", 128, "is 128; models.mine (family gan) draws powers of two from 8 to 64"),
        ("sngan", 256, "is 256; models.mine (family sngan) draws powers of two from 8 to 128"),
        ("biggan", 512, "is 512; models.mine (family biggan) draws powers of two from 16 to 256"),
        ("biggan_cifar", 8, "normalize.resolution is 8; models.mine needs at least 16"),
        ("dcgan", 48, "is 48; models.mine (family dcgan) draws powers of two from 8 to 1024"),
        ("stylegan2", 2048, "draws powers of two from 8 to 1024"),
        ("biggan", 256, "models.mine.latent is 120; 256 px needs a multiple of 7"),
        ("biggan", 64, "models.mine.attention is 64; 64 px has maps of 8, 16, 32; 0: none"),
        ("r3gan", 64, "models.mine.widths has 4 entries; 64 px needs 5, from 4 x 4 upwards"),
        ("r3gan_ffhq64", 32, "models.mine.widths has 5 entries; 32 px needs 4"),
    ],
)
def test_a_resolution_that_a_preset_cannot_do_is_refused_with_what_would_fit(preset: str, resolution: int, words: str):
    changes = {"latent": 125} if (preset, resolution) == ("biggan", 64) else {}
    assert words in refused(preset, resolution, **changes)


def test_r3gans_lists_belong_together():
    assert "cardinalities has 3 entries; 32 px needs 4" in refused("r3gan", cardinalities=[96] * 3)
    message = refused("r3gan", cardinalities=[96, 96, 96, 100])
    assert "models.mine.cardinalities has 100, which does not divide width 768 x expansion 2" in message
    assert resolved("r3gan", 64, widths=[64] * 5, cardinalities=[8] * 5).family == "r3gan"


def test_tiny_settings_of_the_tests_are_settings():
    assert tiny("r3gan").anneal is None
