"""Settings: what is refused, and in which words."""

from pathlib import Path

import pytest
import yaml

from stages.errors import InputError
from stages.settings import load_preset, load_settings
from tests.conftest import ROOT, tiny_params


def load(tmp_path: Path, change) -> None:
    params = tiny_params()
    change(params)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    load_settings(path)


def test_the_projects_own_settings_are_valid():
    settings = load_settings(ROOT / "params.yaml")
    assert len(settings.select) == 2
    model = settings.model("dcgan_nearest")
    assert model.upsample == "nearest"
    assert model.beta1 == load_preset("dcgan")["beta1"] == 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p: p["normalize"].update(resolution=48),
            ("normalize.resolution", "48 is not a power of two", "32, 64"),
        ),
        (lambda p: p["normalize"].update(filtre="box"), ("normalize.filtre: unknown setting", "filter")),
        (lambda p: p["align"].update(mode="eyes"), ("align.mode is 'eyes'", "'none', 'center', 'content' or 'face'")),
        (lambda p: p["data"].update(source="ftp"), ("data.source is 'ftp'", "'emoji', 'folder'")),
        (lambda p: p["data"].update(folder={"path": None}), ("data", "data.folder.path is empty")),
        (lambda p: p.pop("export"), ("export: missing",)),
        (lambda p: p["select"].update(x=dict(p["select"]["dcgan"])), ("select.x has no entry in models",)),
        (
            lambda p: p["select"]["dcgan"].update(colour=1),
            ("select.dcgan.colour: unknown setting", "preset, family, data"),
        ),
        (lambda p: p["select"]["dcgan"].update(preset="stylegan9"), ("preset is stylegan9", "allowed: dcgan")),
        (lambda p: p["select"]["dcgan"].update(family="ldm"), ("family is ldm", "preset dcgan is of family dcgan")),
        (lambda p: p["select"]["dcgan"].update(data="latents/kl"), ("data is latents/kl", "allowed")),
        (lambda p: p["models"]["dcgan"].update(batch=1), ("models.dcgan.batch is 1", "greater than or equal to 2")),
        (lambda p: p["models"]["dcgan"].update(lr=1), ("models.dcgan.lr: unknown setting", "generator_lr")),
        (lambda p: p["models"]["dcgan"].update(objective="magic"), ("objective is 'magic'", "'hinge'")),
        (lambda p: p["models"]["dcgan"].update(ema_half_life_kimg=9), ("ema_half_life_kimg is 9", "still be noise")),
        (lambda p: p["models"]["dcgan"].update(precision="fp16", r1_gamma=1), ("r1_gamma needs precision",)),
        (lambda p: p["evaluate"].update(count="many"), ("evaluate.count is 'many'",)),
        (lambda p: p["benchmark"].update(batches=[]), ("benchmark.batches",)),
        (lambda p: p["benchmark"].update(seconds=float("inf")), ("benchmark.seconds", "finite")),
        (lambda p: p["models"]["dcgan"].update(budget_kimg=float("inf")), ("models.dcgan.budget_kimg", "finite")),
        (lambda p: p["augment"].update(transforms=[]), ("augment", "transforms is empty")),
        (lambda p: p["evaluate"].update(neighbours=5000), ("evaluate", "neighbours is 5000", "count is only")),
        (lambda p: p["select"].update(train=p["select"]["dcgan"]), ("select.train", "called like a stage")),
        (lambda p: p["select"].update({"-x": p["select"]["dcgan"]}), ("select.-x", "letters, digits")),
    ],
)
def test_unknown_and_impossible_values_are_named_with_what_is_allowed(tmp_path, change, words):
    with pytest.raises(InputError) as caught:
        load(tmp_path, change)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"), [("a: [", "not valid YAML"), ("- 1", "holds no settings"), ("", "no settings")]
)
def test_files_that_hold_no_settings_are_refused(tmp_path, text, words):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_settings(path)
    with pytest.raises(InputError, match="does not exist"):
        load_settings(tmp_path / "absent.yaml")
