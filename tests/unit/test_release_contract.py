"""What a model takes and gives, and which changes of it a user would notice."""

import copy
from dataclasses import replace

import pytest

from pipelines.release.contract import contract_of, differences
from stages.generators.interface import Capabilities

GAN = Capabilities("dcgan", (16,), 8, 3)
STEPS = Capabilities("diffusion", (4, 2, 2), 8, 3, ("cat", "dog"), steps=10)
STYLE = Capabilities("stylegan2", (16,), 8, 1, ("cat", "dog"), truncation=True)
TEXT = Capabilities("diffusion", (4, 2, 2), 8, 3, prompt=True, prompt_length=3, guidance=True, default_guidance=2.0)


def value(name: str, *sizes: int, dtype: str = "float32") -> dict:
    return {"name": name, "shape": ["batch", *sizes], "dtype": dtype}


def parity(capabilities: Capabilities) -> dict:
    inputs = [value("latent", *capabilities.latent_shape)]
    if capabilities.class_names:
        inputs.append(value("label", dtype="int64"))
    if capabilities.truncation:
        inputs.append(value("truncation"))
    if capabilities.prompt:
        names = ("input_ids", "attention_mask", "negative_input_ids", "negative_attention_mask")
        inputs += [value(name, 3, dtype="int64") for name in names] + [value("guidance")]
    return {"inputs": inputs, "outputs": [value("pictures", capabilities.channels, 8, 8)]}


def contract(capabilities: Capabilities, **defaults) -> dict:
    return contract_of(capabilities, parity(capabilities), defaults)


def test_every_input_has_a_range_and_a_meaning():
    tokens = {"input_ids": [1, 2, 0], "attention_mask": [1, 1, 0], "guidance": 2.0}
    for capabilities in (GAN, STEPS, STYLE, TEXT):
        for entry in contract(capabilities)["inputs"] + contract(capabilities)["outputs"]:
            assert len(entry["range"]) == 2
            assert entry["meaning"]
    found = {entry["name"]: entry for entry in contract(TEXT, **tokens)["inputs"]}
    assert found["input_ids"]["default"] == [1, 2, 0]
    assert found["guidance"]["default"] == 2.0
    assert found["attention_mask"]["range"] == [0, 1]
    assert "default" not in found["latent"]


def test_a_label_may_be_none_only_where_the_model_draws_in_steps():
    labels = [contract(one)["inputs"][1] for one in (STEPS, STYLE)]
    assert [label["range"] for label in labels] == [[-1, 1], [0, 1]]
    assert ["no class" in label["meaning"] for label in labels] == [True, False]


def test_equal_contracts_have_no_differences():
    for capabilities in (GAN, STEPS, STYLE, TEXT):
        assert differences(contract(capabilities), copy.deepcopy(contract(capabilities))) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (GAN, replace(GAN, latent_shape=(32,)), ["input latent has shape [batch, 32] instead of [batch, 16]"]),
        (
            replace(STYLE, truncation=False),
            STYLE,
            ["input truncation is new"],
        ),
        (STYLE, replace(STYLE, truncation=False), ["input truncation is gone"]),
        (GAN, replace(GAN, channels=1), ["output pictures has shape [batch, 1, 8, 8] instead of [batch, 3, 8, 8]"]),
        (STEPS, replace(STEPS, class_names=("dog", "cat")), ["the class names changed (in order)"]),
        (
            STYLE,
            replace(STYLE, class_names=("cat", "dog", "owl")),
            ["input label has range [0, 2] instead of [0, 1]", "the class names changed (new: owl)"],
        ),
        (STYLE, replace(STYLE, class_names=("cat", "owl")), ["the class names changed (gone: dog; new: owl)"]),
    ],
)
def test_a_change_is_named(old, new, expected):
    assert differences(contract(old), contract(new)) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["noise"].update(recipe="other"), "seeds become noise by another recipe"),
        (lambda c: c["outputs"][0].update(dtype="uint8"), "output pictures has dtype uint8 instead of float32"),
        (lambda c: c["outputs"][0].update(range=[0, None]), "output pictures has range [0, open] instead of [-1, 1]"),
    ],
)
def test_recipe_types_and_ranges_count(change, expected):
    changed = copy.deepcopy(contract(GAN))
    change(changed)
    assert differences(contract(GAN), changed) == [expected]


def test_words_and_defaults_are_no_contract():
    changed = copy.deepcopy(contract(TEXT, guidance=2.0))
    changed["inputs"][-1] |= {"default": 3.0, "meaning": "other words"}
    assert differences(contract(TEXT, guidance=2.0), changed) == []
