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
    assert list(settings.select) == ["dcgan", "dcgan_nearest", "ldm"]
    assert settings.encode == ["kl"]
    assert settings.autoencoder("kl").factor == 4
    model = settings.model("dcgan_nearest")
    assert model.model_dump()["upsample"] == "nearest"
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
        (lambda p: p["select"]["dcgan"].update(preset="stylegan9"), ("preset is stylegan9", "dcgan, ddpm")),
        (lambda p: p["select"]["dcgan"].update(family="ldm"), ("family is ldm", "preset dcgan is of family dcgan")),
        (lambda p: p["select"]["dcgan"].update(data="latents/kl"), ("encode is []", "latents of ['kl']")),
        (lambda p: p["models"]["dcgan"].update(batch=1), ("models.dcgan.batch is 1", "greater than or equal to 2")),
        (lambda p: p["models"]["dcgan"].update(lr=1), ("models.dcgan.lr: unknown setting", "generator_lr")),
        (lambda p: p["models"]["dcgan"].update(objective="magic"), ("objective is 'magic'", "'hinge'")),
        (lambda p: p["models"]["dcgan"].update(ema_half_life_kimg=9), ("ema_half_life_kimg is 9", "still be noise")),
        (
            lambda p: p["models"]["dcgan"].update(precision="fp16", r1_gamma=1),
            ("r1_gamma, r2_gamma and gradient_penalty need precision",),
        ),
        (lambda p: p["evaluate"].update(count="many"), ("evaluate.count is 'many'",)),
        (lambda p: p["benchmark"].update(batches=[]), ("benchmark.batches",)),
        (lambda p: p["benchmark"].update(seconds=float("inf")), ("benchmark.seconds", "finite")),
        (lambda p: p["models"]["dcgan"].update(budget_kimg=float("inf")), ("models.dcgan.budget_kimg", "finite")),
        (lambda p: p["augment"].update(transforms=[]), ("augment", "transforms is empty")),
        (lambda p: p["evaluate"].update(neighbours=5000), ("evaluate", "neighbours is 5000", "count is only")),
        (lambda p: p["select"].update(train=p["select"]["dcgan"]), ("select.train", "called like a stage")),
        (lambda p: p["select"].update({"-x": p["select"]["dcgan"]}), ("select.-x", "letters, digits")),
        (lambda p: p["select"].update({"autoencoder-kl": p["select"]["dcgan"]}), ("autoencoder-kl", "is kept for")),
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


def use_ada(params: dict, transforms: object = "bgc", p: float = 0, **changes: object) -> None:
    params["augment"].update(kind="ada", transforms=transforms, p=p, **changes)


def test_sets_of_ada_are_expanded_and_none_asks_nothing(tmp_path):
    params = tiny_params()
    use_ada(params, "bgcfnc")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert len(load_settings(tmp_path / "params.yaml").augment.transforms) == 18
    load(tmp_path, lambda p: p["augment"].update(kind="none", transforms=["anything"]))
    load(tmp_path, lambda p: p["data"].update(content=["text", "flags", "medical"]))  # DiffAugment turns nothing


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("text", ("xflip", "rotate90", "rotate")),
        ("flags", ("xflip", "rotate90", "rotate", "hue", "lumaflip")),
        ("medical", ("xflip", "rotate90", "rotate", "hue", "lumaflip")),
    ],
)
def test_transforms_that_would_falsify_the_content_are_refused(tmp_path, content, wrong):
    """Refused by name, together and each alone; what is proposed instead is accepted."""

    def change(p: dict, transforms: object = "bgc") -> None:
        use_ada(p, transforms)
        p["data"]["content"] = [content]

    with pytest.raises(InputError, match=f"the pictures show {content} .*{', '.join(sorted(wrong)[:1])}") as caught:
        load(tmp_path, change)
    assert "\n" not in str(caught.value)
    proposed = str(caught.value).split("augment.transforms: ")[1]
    assert not set(yaml.safe_load(proposed)) & set(wrong)
    load(tmp_path, lambda p: change(p, yaml.safe_load(proposed)))
    for name in wrong:
        with pytest.raises(InputError, match=name):
            load(tmp_path, lambda p, name=name: change(p, [name, "contrast"]))


@pytest.mark.parametrize("content", ["text", "flags", "medical"])
@pytest.mark.parametrize("kind", ["none", "diffaugment"])
def test_a_mirror_is_refused_for_every_kind_of_augmentation(tmp_path, content, kind):
    def change(p: dict) -> None:
        p["augment"].update(kind=kind, mirror=True)
        p["data"]["content"] = [content]

    with pytest.raises(InputError, match=f"the pictures show {content} .*mirror"):
        load(tmp_path, change)


@pytest.mark.parametrize(
    ("subgroup", "content"),
    [
        ("flag", "flags"),
        ("country-flag", "flags"),
        ("subdivision-flag", "flags"),
        ("keycap", "text"),
        ("alphanum", "text"),
    ],
)
def test_emoji_of_flags_and_letters_count_as_such_content(tmp_path, subgroup, content):
    def change(p: dict) -> None:
        p["data"]["source"] = "emoji"
        p["data"]["emoji"]["subgroups"] = ["face-smiling", subgroup]
        use_ada(p)

    with pytest.raises(InputError, match=f"the pictures show {content} "):
        load(tmp_path, change)

    def faces(p: dict) -> None:
        change(p)
        p["data"]["emoji"]["subgroups"] = ["face-smiling"]

    load(tmp_path, faces)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: use_ada(p, "bcg"), ("augment.transforms is 'bcg'", "no such set", "bgcfnc")),
        (lambda p: use_ada(p, ["xflip", "translation"]), ("kind is `ada`", "translation", "xfrac", "bgc")),
        (lambda p: p["augment"].update(transforms="bgc"), ("kind is `diffaugment`", "xflip", "color, translation")),
        (lambda p: use_ada(p, ["hue", "hue"]), ("names one twice",)),
        (lambda p: use_ada(p, interval=0), ("augment.interval is 0",)),
        (lambda p: use_ada(p, kimg=0), ("augment.kimg is 0",)),
        (lambda p: use_ada(p, p=1.0), ("kind is `ada` with p 1.0", "set p: 0")),
        (lambda p: use_ada(p, target=1.5), ("augment.target is 1.5",)),
        (lambda p: p["augment"].update(p=1.2), ("augment.p is 1.2",)),
    ],
)
def test_impossible_policies_are_named(tmp_path, change, words):
    with pytest.raises(InputError) as caught:
        load(tmp_path, change)
    for word in words:
        assert word in str(caught.value)
