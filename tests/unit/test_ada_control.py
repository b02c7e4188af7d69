"""ADA's control of p, the policy that training obeys, and the watch on overfitting."""

import copy
import json
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from stages.errors import InputError
from stages.settings import load_preset
from stages.settings.gans import DcganSettings
from stages.trainer.ada.control import Control
from stages.trainer.adversarial.adversaries import Adversaries
from stages.trainer.adversarial.overfitting import OverfittingWatch
from stages.trainer.augmentation import Augmentation, Policy
from stages.trainer.health import find_alerts
from stages.trainer.state import StateFolder
from stages.trainer.world import World

CPU = torch.device("cpu")
ADA = Policy("ada", ("xflip", "scale", "hue"), 0.0, True, 0.6, 4, 500, False)


def policy(**changes: Any) -> Policy:
    return Policy(**{**vars(ADA), **changes})


def follow(control: Control, p: float, signs: list[float], batch: int = 50) -> list[float]:
    history = []
    for sign in signs:
        p = control.follow(p, torch.tensor(sign), batch)
        history.append(p)
    return history


def test_p_moves_once_per_interval_by_the_papers_step():
    step = 50 * 4 / 500_000
    assert follow(Control(0.6, 4, 500, CPU), 0.0, [1.0] * 9) == pytest.approx(
        [0, 0, 0, step, step, step, step, 2 * step, 2 * step]
    )
    assert follow(Control(0.6, 4, 500, CPU), 0.5, [0.0] * 4)[-1] == pytest.approx(0.5 - step)
    assert follow(Control(0.5, 4, 500, CPU), 0.5, [1.0, 0.0, 0.5, 0.5])[-1] == 0.5  # exactly on target


def test_the_mean_over_the_interval_decides():
    assert follow(Control(0.6, 4, 500, CPU), 0.5, [1.0, 1.0, 1.0, -0.5])[-1] > 0.5  # 0.625
    assert follow(Control(0.6, 4, 500, CPU), 0.5, [1.0, 1.0, 1.0, -0.7])[-1] < 0.5  # 0.575


def test_p_travels_from_zero_to_one_in_kimg_and_no_further():
    control, p, seen = Control(0.6, 4, 0.5, CPU), 0.0, 0
    while p < 1:
        p = control.follow(p, torch.tensor(1.0), 5)
        seen += 5
    assert seen == pytest.approx(500, abs=20)
    assert follow(control, p, [1.0] * 400)[-1] == 1.0
    assert follow(control, p, [-1.0] * 4000)[-1] == 0.0


def test_an_interruption_within_an_interval_changes_nothing():
    signs = torch.rand(401, generator=torch.Generator().manual_seed(0)).mul(2.4).sub(0.4).clamp(-1, 1).tolist()
    whole = follow(Control(0.6, 4, 5, CPU), 0.2, signs)
    assert len(set(whole)) > 10
    for cut in (1, 2, 3, 4, 199):
        first, second = Control(0.6, 4, 5, CPU), Control(0.6, 4, 5, CPU)
        before = follow(first, 0.2, signs[:cut])
        second.restore(json.loads(json.dumps(first.export_state())))
        p = json.loads(json.dumps(before[-1]))
        assert before + follow(second, p, signs[cut:]) == whole


def test_a_fixed_p_never_moves_and_leaves_no_state():
    for fixed in (policy(adaptive=False, p=0.3), policy(kind="diffaugment", transforms=("color",), p=0.3)):
        augmentation = Augmentation(fixed, CPU)
        for _ in range(20):
            augmentation.observe(torch.tensor(1.0), 64)
        assert augmentation.p == 0.3
        assert augmentation.export_state() == {}
        augmentation.restore({"p": 0.9, "signs": 0.0, "steps": 0})
        assert augmentation.p == 0.3


def test_none_changes_no_picture_and_each_kind_has_its_own_pipe():
    pictures = torch.rand(8, 3, 16, 16) * 2 - 1
    random = torch.Generator().manual_seed(0)
    assert Augmentation(policy(kind="none", p=1.0), CPU)(pictures, random) is pictures
    assert not torch.equal(Augmentation(policy(p=1.0), CPU)(pictures, random), pictures)
    other = policy(kind="diffaugment", transforms=("translation",), p=1.0)
    assert not torch.equal(Augmentation(other, CPU)(pictures, random), pictures)


def test_a_policy_obeys_only_what_matters_for_its_kind():
    same: list[tuple[str, dict[str, Any]]] = [
        ("none", {"p": 0.5, "target": 0.1, "transforms": ("xflip",)}),
        ("diffaugment", {"kimg": 1, "interval": 9}),
    ]
    for kind, changes in same:
        assert policy(kind=kind).obeyed() == policy(kind=kind, **changes).obeyed()
    assert policy(adaptive=False, kimg=1).obeyed() == policy(adaptive=False, kimg=2).obeyed()
    for changes in ({"kimg": 1.0}, {"target": 0.5}, {"interval": 8}, {"p": 0.1}, {"mirror": True}, {"adaptive": False}):
        assert policy(**changes).obeyed() != ADA.obeyed()
    for kind in ("none", "diffaugment", "ada"):
        assert policy(kind=kind, mirror=True).obeyed() != policy(kind=kind).obeyed()
    json.dumps(ADA.obeyed())


def test_a_policy_file_of_an_earlier_version_is_refused_by_name():
    written = {**vars(ADA), "transforms": ["xflip"], "advice": []}
    assert Policy.read(written).transforms == ("xflip",)
    del written["interval"], written["kimg"]
    with pytest.raises(InputError, match=r"policy\.json lacks interval, kimg; run"):
        Policy.read(written)


def adversaries(policy: Policy, **changes: Any) -> Adversaries:
    small: dict[str, Any] = {"latent": 8, "width": 4, "discriminator_width": 4, "batch": 8, "ema_half_life_kimg": 0.1}
    small |= {"upsample": "nearest", "threads": 1}
    settings = DcganSettings(**{**load_preset("dcgan"), **small, **changes})
    config = {name: getattr(settings, name) for name in (*settings.PARTS, *settings.ARCHITECTURE)}
    config |= {"resolution": 8, "channels": 3, "class_names": []}
    AcceleratorState._reset_state()  # accelerate keeps one precision per process
    accelerator = Accelerator(mixed_precision="no" if settings.precision == "fp32" else settings.precision, cpu=True)
    return Adversaries(config, settings, policy, World(accelerator))


@pytest.fixture
def real() -> torch.Tensor:
    return torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("changes", [{}, {"r1_gamma": 1.0}, {"precision": "bf16"}])
def test_a_training_with_ada_resumes_exactly_within_an_interval(tmp_path, real, changes):
    def train(trained: Adversaries, start: int, steps: int) -> None:
        for step in range(start, start + steps):
            trained.step(real.clone().to(memory_format=torch.channels_last), step * 8)

    pace = policy(kimg=0.2, p=0.3)
    whole, first, second = (adversaries(pace, **changes) for _ in range(3))
    train(whole, 0, 14)
    train(first, 0, 6)
    assert first.augmentation.export_state()["steps"] == 2
    states = StateFolder(tmp_path)
    states.save(first.export_state(48, {}))
    loaded = states.load_newest(48)
    assert loaded
    second.restore(loaded)
    train(second, 6, 8)
    assert second.augmentation.export_state() == whole.augmentation.export_state()
    assert whole.augmentation.p != 0.3  # three moves
    expected, found = whole.export_state(112, {}).tensors, second.export_state(112, {}).tensors
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_r1_is_taken_on_the_picture_before_augmentation(real):
    """Where a cutout covers the picture, the discriminator cannot see it: its gradient there is 0."""
    trained = adversaries(policy(transforms=("cutout",), p=1.0, adaptive=False), r1_gamma=1.0)
    statistics = trained.step(real.clone(), 0)
    unseen = adversaries(policy(kind="none"), r1_gamma=1.0).step(real.clone(), 0)
    assert 0 < float(statistics["r1"]) < float(unseen["r1"])


class Pictures:
    """What a data set shows the watch."""

    def __init__(self, count: int, level: int) -> None:
        self.pixels = torch.full((count, 8, 8, 3), level, dtype=torch.uint8).numpy()

    def __len__(self) -> int:
        return len(self.pixels)


def test_the_watch_reports_each_kind_and_changes_nothing(real):
    trained = adversaries(policy(p=0.5))
    trained.step(real.clone(), 0)
    before = copy.deepcopy(trained.export_state(8, {}))
    watch = OverfittingWatch(Pictures(50, 30), Pictures(21, 220), trained.settings)  # type: ignore[arg-type]
    assert watch.count == 16
    random = torch.get_rng_state()
    logits = watch.mean_logits(trained, 8)
    assert list(logits) == ["train_logit", "holdout_logit", "generated_logit"]
    assert len(set(logits.values())) == 3
    assert logits == watch.mean_logits(trained, 8)
    after = trained.export_state(8, {})
    assert all(torch.equal(before.tensors[name], after.tensors[name]) for name in before.tensors)
    assert before.values == after.values
    assert torch.equal(random, torch.get_rng_state())


def test_the_watch_sees_what_the_discriminator_says(real):
    trained = adversaries(policy(kind="none"))
    pictures = watch_pictures = (real * 127.5 + 127.5).round().byte()
    data = Pictures(8, 0)
    data.pixels = watch_pictures.permute(0, 2, 3, 1).numpy()
    watch = OverfittingWatch(data, data, trained.settings)  # type: ignore[arg-type]
    with torch.no_grad():
        expected = trained.discriminator(pictures.float() / 127.5 - 1).mean()
    logits = watch.mean_logits(trained, 0)
    assert logits["train_logit"] == logits["holdout_logit"] == pytest.approx(float(expected), abs=1e-5)


def test_the_watch_is_silent_without_a_hold_out():
    trained = adversaries(ADA)
    watch = OverfittingWatch(Pictures(50, 30), Pictures(0, 0), trained.settings)  # type: ignore[arg-type]
    assert watch.mean_logits(trained, 0) == {}


def test_a_strong_p_that_lasts_is_an_alert():
    row = {"kimg": 0, "diversity": 1.0, "separation": 0.5}
    strong = [row | {"kimg": k, "p": 0.85} for k in range(1, 5)]
    (alert,) = find_alerts([row, *strong])
    assert (alert["alert"], alert["kimg"], alert["p"]) == ("augmentation leaks", 3, 0.85)
    assert "data" in alert["advice"] and "--adopt" in alert["advice"] and "width" in alert["advice"]
    assert find_alerts([each | {"p": 0.8} for each in strong]) == []
