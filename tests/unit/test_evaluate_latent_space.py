"""Latent space: lengths in closed form, independence of epsilon, jumps, with torch and ONNX generators."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.errors import GateError, InputError
from stages.evaluate.unseen.latent_space import (
    EPSILON,
    interpolate,
    measure_jumps,
    measure_path_length,
    pruned_mean,
    slerp,
    to_grey_levels,
)
from stages.generators import adversarial
from stages.generators.interface import Capabilities, Generator, Request
from stages.generators.noise import latents

SHAPE = (3, 4, 4)
DIMENSION = 48


class Drawn(Generator):
    """Draws by a function of the flattened latent, (N, 48) to (N, 48)."""

    def __init__(self, function, latent_shape: tuple[int, ...] = (DIMENSION,)) -> None:
        self.function, self.identity = function, {}
        self.capabilities = Capabilities("test", latent_shape, 4, 3)

    def generate(self, request: Request) -> np.ndarray:
        return self.function(request.latent.reshape(len(request.latent), -1)).reshape(-1, *SHAPE)


def flat(pictures: np.ndarray) -> np.ndarray:
    assert pictures.dtype == np.float32
    return pictures.reshape(len(pictures), -1)


LINEAR = Drawn(lambda latent: latent * 0.01)  # far from the borders of [-1, 1]


def arc_speeds(seeds: range) -> np.ndarray:
    """Return |dz/dt|^2 of slerp with linear norm at each pair's t, averaged over t: angle^2 r^2 + (change of r)^2."""
    ends = latents(seeds, (DIMENSION,)).astype(np.float64)
    first, second = ends[::2], ends[1::2]
    norms = [np.linalg.norm(end, axis=1) for end in (first, second)]
    angle = np.arccos((first * second).sum(axis=1) / norms[0] / norms[1])
    t = np.array([np.random.Generator(np.random.Philox(key=seed)).uniform() for seed in seeds[::2]])
    radius = (1 - t) * norms[0] + t * norms[1]
    return (angle * radius) ** 2 + (norms[1] - norms[0]) ** 2


def test_the_length_of_a_linear_generator_is_that_of_the_arc():
    seeds = range(400)
    found = measure_path_length(LINEAR, flat, seeds)
    expected, error = pruned_mean(arc_speeds(seeds) * (0.01 * 127.5) ** 2)
    assert found.length == pytest.approx(expected, rel=5e-3)
    assert found.error == pytest.approx(error, rel=0.02)
    assert found.pairs == 200
    assert found.stable
    assert found.doubled == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("epsilon", [1e-4, 3e-4, 1e-3, 3e-3])
def test_the_length_does_not_depend_on_epsilon(epsilon: float):
    generator = trained()
    features = projection()
    reference = measure_path_length(generator, features, range(60))
    found = measure_path_length(generator, features, range(60), epsilon)
    assert found.stable
    assert found.length == pytest.approx(reference.length, rel=0.03)


def test_rounded_pictures_and_too_large_steps_are_noticed():
    generator, features = trained(), projection()
    rounded = measure_path_length(generator, lambda pictures: features(np.rint(pictures)), range(60))
    assert not rounded.stable  # at this epsilon most grey levels do not change at all, and some jump
    assert not measure_path_length(generator, features, range(60), 0.25).stable


def trained() -> adversarial.AdversarialGenerator:
    """Return a small DCGAN whose pictures use the whole range."""
    import torch

    config = {"family": "dcgan", "class_names": [], "resolution": 16, "channels": 3, "latent": 16, "width": 8}
    config |= {"upsample": "transposed"}
    generator = adversarial.untrained(config, 0, Path())
    for module in generator.network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.train()
    generator.network(torch.from_numpy(latents(range(256), (16,))))
    generator.network.eval()
    with torch.no_grad():
        convolutions = [weights for weights in generator.network.parameters() if weights.ndim == 4]
        convolutions[-1].mul_(10)
    return generator


def projection():
    matrix = np.random.default_rng(0).normal(size=(3 * 16 * 16, 32)).astype(np.float32)
    return lambda pictures: pictures.reshape(len(pictures), -1) @ matrix / 100


def test_a_still_generator_has_no_length():
    found = measure_path_length(Drawn(np.zeros_like), flat, range(8))
    assert (found.length, found.error, found.doubled, found.stable) == (0, 0, 1, True)
    json.dumps(found.to_json(), allow_nan=False)


def test_a_latent_of_any_shape_is_taken_whole():
    shaped = Drawn(lambda latent: latent * 0.01, (3, 4, 4))
    assert measure_path_length(shaped, flat, range(40)) == measure_path_length(LINEAR, flat, range(40))


def test_batches_and_repetition_change_nothing():
    first = measure_path_length(LINEAR, flat, range(40), batch=3)
    second = measure_path_length(LINEAR, flat, range(40), batch=64)
    assert first.length == pytest.approx(second.length, rel=1e-6)
    assert second == measure_path_length(LINEAR, flat, range(40))
    assert second.length != measure_path_length(LINEAR, flat, range(40, 80)).length


def test_slerp_keeps_norms_and_meets_its_ends():
    first, second = latents(range(5), SHAPE), latents(range(5, 10), SHAPE)
    np.testing.assert_allclose(slerp(first, second, 0), first, rtol=1e-5)
    np.testing.assert_allclose(slerp(first, second, 1), second, rtol=1e-5)
    middle = slerp(first, second, 0.5)
    assert middle.shape == first.shape
    assert middle.dtype == np.float32
    norms = [np.linalg.norm(end.reshape(5, -1), axis=1) for end in (first, second, middle)]
    np.testing.assert_allclose(norms[2], (norms[0] + norms[1]) / 2, rtol=1e-5)
    halves = [np.einsum("ni,ni->n", end.reshape(5, -1), middle.reshape(5, -1)) for end in (first, second)]
    np.testing.assert_allclose(halves[0] / norms[0], halves[1] / norms[1], rtol=1e-4)  # halfway in angle


def test_slerp_of_equal_and_opposite_latents_is_finite():
    end = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(slerp(end, end, 0.3), end, rtol=1e-6)
    assert np.isfinite(slerp(end, -end, 0.5)).all()
    assert np.isfinite(slerp(end, np.zeros_like(end), 0.5)).all()


def test_a_pruned_mean_ignores_outliers_and_has_an_honest_error():
    values = np.concatenate([np.ones(98), [-1e9, 1e9]])
    assert pruned_mean(values)[0] == pytest.approx(1)
    random = np.random.default_rng(0)
    found = [pruned_mean(random.normal(size=300)) for _ in range(300)]
    means, errors = np.array(found).T
    assert errors.mean() == pytest.approx(means.std(), rel=0.15)


def test_an_interpolation_begins_and_ends_with_the_pictures_of_its_seeds():
    strip = interpolate(LINEAR, range(6), 9, batch=10)
    assert strip.shape == (3, 9, *SHAPE)
    drawn = LINEAR.generate(Request(latents(range(6), (DIMENSION,))))
    np.testing.assert_allclose(strip[:, 0], drawn[0::2], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(strip[:, -1], drawn[1::2], rtol=1e-4, atol=1e-7)


def test_a_steady_generator_has_no_jump_and_a_torn_one_has_the_largest():
    steady = measure_jumps(interpolate(LINEAR, range(20), 33), flat)
    assert steady.ratios.max() < 1.3
    torn = Drawn(lambda latent: 0.5 * np.sign(latent[:, :1]) * np.ones_like(latent))
    strip = interpolate(torn, range(40), 33)
    found = measure_jumps(strip, flat)
    crossing = strip[:, 0, 0, 0, 0] != strip[:, -1, 0, 0, 0]
    assert crossing.any()
    np.testing.assert_allclose(found.ratios[crossing], 32)
    np.testing.assert_allclose(found.ratios[~crossing], 1)  # nothing moves
    worst = found.to_json()
    assert (worst["largest"], worst["steps"], worst["pairs"]) == (32, 32, 20)
    place = found.positions[np.flatnonzero(crossing)[0]]
    row = strip[np.flatnonzero(crossing)[0], :, 0, 0, 0]
    assert row[place] != row[place + 1]


def test_a_jump_hidden_in_a_moving_picture_is_found():
    def function(latent: np.ndarray) -> np.ndarray:
        return latent * 0.01 + 0.3 * (latent[:, :1] > 0)

    found = measure_jumps(interpolate(Drawn(function), range(40), 33), flat)
    assert np.quantile(found.ratios, 0.9) > 5


def test_grey_levels_are_those_of_uint8_without_rounding():
    from stages.dataset import to_uint8

    pictures = np.linspace(-1.2, 1.2, 999, dtype=np.float32)
    levels = to_grey_levels(pictures)
    np.testing.assert_array_equal(np.rint(levels).astype(np.uint8), to_uint8(pictures))
    assert len(np.unique(levels)) > 500


class Steered(Drawn):
    """Draws the class or the prompt's length as a grey level beside the latent; notes what it is asked for."""

    def __init__(self, **takes: Any) -> None:
        super().__init__(lambda latent: latent * 0.01)
        self.capabilities = Capabilities("test", (DIMENSION,), 4, 3, **takes)
        self.asked: list[list] = []

    def generate(self, request: Request) -> np.ndarray:
        asked = request.extra["label"].tolist() if self.capabilities.class_names else list(request.prompts)
        self.asked.append(asked)
        shift = np.array([value if isinstance(value, int) else len(value) for value in asked])
        return super().generate(request) + 0.1 * shift[:, None, None, None].astype(np.float32)


def test_a_condition_is_kept_along_a_path():
    by_class, by_prompt = Steered(class_names=("a", "b", "c")), Steered(prompt=True)
    strip = interpolate(by_class, range(10), 4, batch=8)
    means = strip.mean(axis=(2, 3, 4))
    np.testing.assert_allclose(means, 0.1 * np.array([0, 1, 2, 0, 1])[:, None].repeat(4, 1), atol=0.02)
    assert by_class.asked == [[0, 1] * 4, [2, 0] * 4, [1] * 4]  # two pairs at a time, at each of four places
    interpolate(by_prompt, range(4), 3, captions=["one", "three"])
    assert by_prompt.asked == [["one", "three"] * 3]


@pytest.mark.parametrize("takes", [{"class_names": ("a", "b", "c")}, {"prompt": True}])
def test_a_condition_that_only_shifts_leaves_the_length_as_it_is(takes: dict[str, Any]):
    found = measure_path_length(Steered(**takes), flat, range(40), captions=["one", "three"])
    plain = measure_path_length(LINEAR, flat, range(40))
    assert found.length == pytest.approx(plain.length, rel=1e-3)


def test_each_row_of_a_stochastic_samplers_noise_keeps_its_variance():
    first, second = (latents(range(start, start + 40), (6, 4, 8, 8)) for start in (0, 40))
    for t in (0.25, 0.5):
        rows = slerp(first, second, t)
        assert rows.shape == first.shape
        spread = rows.var(axis=(0, 2, 3, 4))
        np.testing.assert_allclose(spread, 1, atol=0.05)  # a straight line would give 0.625 and 0.5


def test_an_onnx_file_has_the_same_path(tmp_path: Path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from stages.generators.onnx_file import OnnxGenerator
    from stages.generators.onnx_metadata import describe

    shape = helper.make_node("Reshape", ["scaled", "shape"], ["pictures"])
    scale = helper.make_node("Mul", ["latent", "factor"], ["scaled"])
    constants = [
        numpy_helper.from_array(np.array(0.01, np.float32), "factor"),
        numpy_helper.from_array(np.array([-1, *SHAPE]), "shape"),
    ]
    inputs = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["batch", DIMENSION])]
    outputs = [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["batch", *SHAPE])]
    graph = helper.make_graph([scale, shape], "g", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, describe(LINEAR.capabilities, {}))
    onnx.save(model, tmp_path / "model.onnx")
    found = measure_path_length(OnnxGenerator(tmp_path / "model.onnx"), flat, range(40))
    assert found.length == pytest.approx(measure_path_length(LINEAR, flat, range(40)).length, rel=1e-4)


def test_bad_input_is_one_line():
    broken = Drawn(lambda latent: latent * np.nan)
    cases = [
        (lambda: measure_path_length(LINEAR, flat, range(8), 0), "epsilon is 0"),
        (lambda: measure_path_length(LINEAR, flat, range(8), 0.3), "epsilon is 0.3"),
        (lambda: measure_path_length(LINEAR, flat, range(3)), "3 seeds were given; expected 4"),
        (lambda: interpolate(LINEAR, range(8), 1), "two or more"),
        (lambda: interpolate(LINEAR, range(1), 5), "1 seeds were given; expected 2"),
        (lambda: measure_jumps(np.zeros((2, 2, *SHAPE)), flat), "steps >= 3"),
    ]
    for call, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    for call in (
        lambda: measure_path_length(broken, flat, range(8), EPSILON),
        lambda: interpolate(broken, range(4), 5),
    ):
        with pytest.raises(GateError, match="NaN or infinity"):
            call()
