"""The parts of diffusion models in ONNX: names, parity, and pictures drawn from them by numpy alone."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from transformers import AutoTokenizer

from stages.errors import GateError
from stages.export import run as export
from stages.export.components import build_components, build_part, compare_part
from stages.generators.diffusion.generator import DiffusionGenerator
from stages.generators.interface import Component, Request
from stages.generators.noise import latents
from stages.settings import ExportSettings
from stages.storage import write_bytes
from tests.unit.test_diffusers_folder import contents, make_generator

OPSET, TOLERANCE = 20, 1e-4
COUNT = 3
LABELS = np.array([2, -1, 0])
PROMPTS = ["a smiling face", "", "a red cat"]
SAMPLE = ["batch", 3, 8, 8]
LATENT = ["batch", 4, 8, 8]
TOKENS = {"input_ids": ["batch", 8], "attention_mask": ["batch", 8]}

SIGNATURES: dict[str, dict[str, tuple[dict[str, list], str]]] = {
    "ancestral": {"unet": ({"sample": SAMPLE, "timestep": ["steps"]}, "out_sample")},
    "classes": {
        "unet": ({"sample": LATENT, "timestep": ["steps"], "class_labels": ["batch"]}, "out_sample"),
        "vae_decoder": ({"latent_sample": LATENT}, "sample"),
    },
    "text": {
        "unet": (
            {
                "sample": SAMPLE,
                "timestep": ["steps"],
                "encoder_hidden_states": ["batch", 8, 16],
                "encoder_attention_mask": ["batch", 8],
            },
            "out_sample",
        ),
        "text_encoder": (TOKENS, "last_hidden_state"),
    },
    "dit": {
        "transformer": (
            {"hidden_states": SAMPLE, "timestep": ["steps"], "class_labels": ["batch"]},
            "out_hidden_states",
        )
    },
}
SETTINGS = ExportSettings(opset=OPSET, tolerance=TOLERANCE, sampled_tolerance=1e-2)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


def write_parts(generator: DiffusionGenerator, folder: Path) -> dict[str, dict[str, Any]]:
    parts = build_components(generator, OPSET, TOLERANCE)
    for name, part in parts.items():
        write_bytes(folder / name / "model.onnx", part.data)
    generator.write_layout(folder)
    return {name: part.report for name, part in parts.items()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """Every model's parts, each with its report beside it."""
    root = tmp_path_factory.mktemp("onnx")
    for name in SIGNATURES:
        report = write_parts(make_generator(name, home), root / name)
        (root / f"{name}.json").write_text(json.dumps(report))
    return root


def report_of(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / f"{name}.json").read_text())
    return found


def read_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("copied_sampler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Host:
    """What a program does that has the folder, numpy, onnxruntime and a tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sampler = read_module(folder / "numpy_sampler.py")
        self.trajectory = self.sampler.read_trajectory(folder / "trajectory.json")
        self.denoiser = self.session("unet" if (folder / "unet").is_dir() else "transformer")
        self.sample_name = self.denoiser.get_inputs()[0].name

    def session(self, name: str) -> InferenceSession:
        return InferenceSession(self.folder / name / "model.onnx", providers=["CPUExecutionProvider"])

    def conditioned(self, negative: bool) -> dict[str, np.ndarray]:
        if "class_names" in self.trajectory:
            none = self.trajectory["no_class"]
            return {"class_labels": np.full(COUNT, none) if negative else np.where(LABELS < 0, none, LABELS)}
        if not (self.folder / "tokenizer").is_dir():
            return {}
        tokenizer = AutoTokenizer.from_pretrained(self.folder / "tokenizer")
        said = [self.trajectory["negative_prompt"]] * COUNT if negative else PROMPTS
        tokens = dict(tokenizer(said, padding="max_length", return_tensors="np"))
        embeddings = self.session("text_encoder").run(None, tokens)[0]
        return {"encoder_hidden_states": embeddings, "encoder_attention_mask": tokens["attention_mask"]}

    def network(self, negative: bool = False) -> Any:
        told = self.conditioned(negative)
        return lambda x, t: self.denoiser.run(None, {self.sample_name: x, "timestep": t, **told})[0]

    def draw(self, noise: np.ndarray) -> np.ndarray:
        guidance = self.trajectory["guidance"]
        unconditional = self.network(negative=True) if guidance != 1 else None
        found = self.sampler.sample(self.network(), noise, self.trajectory, guidance, unconditional)
        if (self.folder / "vae_decoder").is_dir():
            found = found / self.trajectory["scaling_factor"] + self.trajectory["shift_factor"]
            found = self.session("vae_decoder").run(None, {"latent_sample": found.astype(np.float32)})[0]
        return found.clip(-1, 1)


@pytest.mark.parametrize("name", SIGNATURES)
def test_parts_are_named_as_diffusers_and_optimum_name_them(name, root):
    report = report_of(root, name)
    assert list(report) == list(SIGNATURES[name])
    for part, (inputs, output) in SIGNATURES[name].items():
        assert {value["name"]: value["shape"] for value in report[part]["inputs"]} == inputs
        assert [value["name"] for value in report[part]["outputs"]] == [output]
        assert report[part]["outputs"][0]["shape"][0] == "batch"
        assert (root / name / part / "config.json").is_file()


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_part_gives_what_torch_gives_in_any_batch(name, root):
    for part in report_of(root, name).values():
        assert list(part["max_abs_difference"]) == ["1", "2", "5"]
        assert max(part["max_abs_difference"].values()) < TOLERANCE


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_index_names_every_part(name, root):
    index = json.loads((root / name / "model_index.json").read_text())
    graphs = [key for key, value in index.items() if value == ["diffusers", "OnnxRuntimeModel"]]
    assert sorted(graphs) == sorted(SIGNATURES[name])
    assert "scheduler" in index
    assert ("tokenizer" in index) == (name == "text")


@pytest.mark.parametrize("name", SIGNATURES)
def test_numpy_draws_torchs_pictures_from_the_parts(name, root, home):
    generator, host = make_generator(name, home), Host(root / name)
    assert host.trajectory["noise_shape"] == list(generator.capabilities.latent_shape)
    noise = latents(range(COUNT), tuple(host.trajectory["noise_shape"]))
    label = {"label": LABELS} if generator.capabilities.class_names else {}
    expected = generator.generate(Request(noise, label, PROMPTS if generator.text else ()))
    assert (np.abs(expected) < 1).mean() > 0.1
    np.testing.assert_allclose(host.draw(noise), expected, atol=1e-3)


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_step_is_the_step_of_the_scheduler_in_the_folder(name, root):
    host = Host(root / name)
    index = json.loads((root / name / "model_index.json").read_text())
    scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(root / name / "scheduler")
    steps = len(host.trajectory["timesteps"])
    flow = "Flow" in index["scheduler"][1]  # Flux places its timesteps so
    scheduler.set_timesteps(steps, **({"sigmas": np.linspace(1, 1 / steps, steps)} if flow else {}))
    noise, seen = latents(range(COUNT), tuple(host.trajectory["noise_shape"])), []

    def network(x: np.ndarray, t: np.ndarray) -> np.ndarray:
        seen.append((t[0], host.network()(x, t)))
        return seen[-1][1]

    rows = noise if noise.ndim == 5 else noise[:, None]
    x = torch.from_numpy(rows[:, 0]) * getattr(scheduler, "init_noise_sigma", 1.0)
    for number, found in enumerate(host.sampler.states(network, noise, host.trajectory)):
        time, output = seen[number]
        assert time == scheduler.timesteps[number]
        row = torch.from_numpy(rows[:, min(number + 1, rows.shape[1] - 1)])
        options = {"eta": 1.0, "variance_noise": row} if noise.ndim == 5 else {}
        x = scheduler.step(torch.from_numpy(output), scheduler.timesteps[number], x, **options, return_dict=False)[0]
        np.testing.assert_allclose(found, x.numpy(), atol=1e-5 * max(1.0, float(x.abs().max())))
        x = torch.from_numpy(found.astype(np.float32))
    assert len(seen) == steps


def test_one_timestep_stands_for_the_whole_batch_or_each_picture_has_its_own(root):
    host = Host(root / "dit")
    noise, labels = latents(range(COUNT), (3, 8, 8)), np.arange(COUNT)

    def predict(rows: slice, times: list[float]) -> np.ndarray:
        inputs = {"hidden_states": noise[rows], "timestep": np.array(times, np.float32), "class_labels": labels[rows]}
        found: np.ndarray = host.denoiser.run(None, inputs)[0]
        return found

    whole = slice(None)
    np.testing.assert_allclose(predict(whole, [500]), predict(whole, [500] * COUNT), atol=1e-6)
    own = predict(whole, [10, 500, 900])
    for number, time in enumerate([10, 500, 900]):
        np.testing.assert_allclose(own[number], predict(slice(number, number + 1), [time])[0], atol=1e-5)
    assert np.abs(own[0] - predict(whole, [500])[0]).max() > 1e-3


def test_diffusers_runs_a_part_as_its_own_onnx_pipeline_does(root):
    options = dict.fromkeys(("provider", "sess_options", "provider_options"))  # which it demands
    unet = diffusers.OnnxRuntimeModel.from_pretrained(root / "ancestral" / "unet", **options)
    noise = latents(range(COUNT), (3, 8, 8))
    found = unet(sample=noise, timestep=np.array([250.0], np.float32))[0]
    expected = Host(root / "ancestral").network()(noise, np.full(COUNT, 250.0, np.float32))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_no_file_holds_a_path(root, tmp_path_factory):
    places = (Path(export.__file__).parents[2], tmp_path_factory.getbasetemp())
    for name in SIGNATURES:
        for path, data in contents(root / name).items():
            assert not any(str(place).encode() in data for place in places), path


def test_the_stage_writes_the_same_parts_again_and_their_parity_beside_the_file(root, tmp_path, home, monkeypatch):
    monkeypatch.setattr(export, "load_trained", lambda weights: make_generator("dit", home))
    report = export.run(SETTINGS, tmp_path / "weights", tmp_path / "onnx")
    found = contents(tmp_path / "onnx")
    assert json.loads(found.pop(Path("parity.json"))) == report
    assert found.pop(Path("model.onnx"))
    assert found == contents(root / "dit")
    assert report["components"] == report_of(root, "dit")


class Scaled(torch.nn.Module):
    """Multiplies by what it counts, so that no two calls agree."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return sample * self.calls


class Fixed(torch.nn.Module):
    """Is for three pictures alone."""

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        return sample.reshape(3, 2, 2)


def examples(batch: int) -> dict[str, np.ndarray]:
    return {"sample": latents(range(batch), (4,))}


def test_a_part_that_differs_from_torch_is_refused():
    with pytest.raises(GateError, match=r"part at batch \d differs from torch by .*; export.tolerance allows"):
        build_part("part", Component(Scaled(), examples, "out_sample"), OPSET, TOLERANCE)


def test_a_part_whose_batch_is_fixed_is_refused():
    with pytest.raises(GateError, match="part"):
        build_part("part", Component(Fixed(), examples, "out_sample"), OPSET, TOLERANCE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((2, 4)), r"gives shape \(2, 4\); torch gives \(2, 3\)"),
        (np.full((2, 3), np.nan), "not finite"),
        (np.full((2, 3), 10.002), r"differs from torch by 2.000e-03; export.tolerance allows 1.000e-03"),
    ],
)
def test_a_comparison_refuses_other_shapes_holes_and_differences(given, message):
    with pytest.raises(GateError, match=message):
        compare_part("part at batch 2", np.full((2, 3), 10.0), given, TOLERANCE)


def test_a_comparison_allows_a_difference_beside_the_largest_value():
    found = compare_part("part at batch 2", np.full((2, 3), 10.0), np.full((2, 3), 10.0005), TOLERANCE)
    assert found == pytest.approx(5e-4)
