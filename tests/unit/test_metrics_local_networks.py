"""DINOv2 and CLIP with random weights: plumbing and arithmetic, not published scores, whose weights are not here."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch_fidelity.feature_extractor_clip import CLIPVisual, FeatureExtractorCLIP

from stages.errors import InputError
from stages.metrics.feature_networks import open_network
from stages.metrics.vision_transformer import Shape, VisionTransformer
from stages.storage import sha256_file

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:Converting a tensor")
CPU = torch.device("cpu")
SHAPE = Shape(width=64, depth=2, patch=14, grid=7, inner=96)


def shaken(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network.eval().requires_grad_(False)


def pictures(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 40, 32), np.uint8)


@pytest.fixture(scope="module")
def dinov2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dinov2") / "dinov2.pth"
    torch.save(shaken(VisionTransformer(SHAPE, 224)).state_dict(), path)
    return path


def test_dinov2_is_read_by_its_published_names(dinov2_file: Path):
    network = open_network("dinov2", weights=dinov2_file, device=CPU)
    features, logits = network.classify(pictures())
    assert features.shape == (3, 64) == (3, network.dimension)
    assert features.dtype == np.float32 and np.isfinite(features).all() and logits is None
    assert len(np.unique(features.round(4), axis=0)) == 3
    short = sha256_file(dinov2_file)[:8]
    assert network.names()["fd"] == f"fd_dinov2_{short}"
    assert network.recipe["features"] == "dinov2-64x2" and network.recipe["layer"] == "class token"
    assert network.recipe["normalisation"].startswith("(x - 123.675) / 58.395; ")


def test_dinov2_is_its_definition_written_out(dinov2_file: Path):
    """The transformer by plain matrix products; positions are compared with the authors' own interpolation."""
    weights = torch.load(dinov2_file, weights_only=True)
    network = open_network("dinov2", weights=dinov2_file, device=CPU)
    prepared = network.preparation(pictures(1))

    patches = nn.functional.unfold(prepared, 14, stride=14).transpose(1, 2)[0]
    tokens = patches @ weights["patch_embed.proj.weight"].flatten(1).T + weights["patch_embed.proj.bias"]
    planes = weights["pos_embed"][:, 1:].reshape(1, 7, 7, 64).permute(0, 3, 1, 2)
    fitted = nn.functional.interpolate(planes, scale_factor=16.1 / 7, mode="bicubic")[0].flatten(1).T
    tokens = torch.cat([weights["cls_token"][0] + weights["pos_embed"][0, :1], tokens + fitted])

    def linear(values: torch.Tensor, name: str) -> torch.Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(values: torch.Tensor, name: str) -> torch.Tensor:
        centred = values - values.mean(dim=1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    for block in ("blocks.0", "blocks.1"):
        query, key, value = linear(norm(tokens, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=1)
        mixed = torch.softmax(query @ key.T / 8, dim=1) @ value
        tokens = tokens + weights[f"{block}.ls1.gamma"] * linear(mixed, f"{block}.attn.proj")
        inner = nn.functional.gelu(linear(norm(tokens, f"{block}.norm2"), f"{block}.mlp.fc1"))
        tokens = tokens + weights[f"{block}.ls2.gamma"] * linear(inner, f"{block}.mlp.fc2")
    expected = norm(tokens, "norm")[0].numpy()
    np.testing.assert_allclose(network.classify(pictures(1))[0][0], expected, rtol=1e-4, atol=1e-4)


def test_both_run_in_the_fast_engine(dinov2_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("stages.metrics.fast_engine.cache_folder", lambda: tmp_path / "cache")
    for name, path in (("dinov2", dinov2_file), ("clip", write_clip(tmp_path))):
        exact = open_network(name, weights=path, device=CPU).classify(pictures())[0]
        fast, logits = open_network(name, weights=path, engine="fast", device=CPU).classify(pictures())
        assert logits is None
        np.testing.assert_allclose(fast, exact, rtol=1e-3, atol=1e-4)


class Clip(nn.Module):
    """As much of CLIP as its picture features need, by the published names."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = CLIPVisual(32, 64, 2, 64, 16).visual
        self.text_projection = nn.Parameter(torch.zeros(16, 32))

    def forward(self, prepared: torch.Tensor) -> torch.Tensor:
        return self.visual(prepared)


def make_clip() -> Clip:
    torch.manual_seed(0)
    return shaken(Clip()).half().float()  # type: ignore[return-value]  # published weights are half precision, too


def write_clip(folder: Path) -> Path:
    path = folder / "clip.pth"
    torch.save(make_clip().state_dict(), path)
    return path


def test_clip_is_torch_fidelitys(tmp_path: Path):
    archive = tmp_path / "clip.pt"
    torch.jit.trace(make_clip(), torch.zeros(1, 3, 64, 64)).save(archive)
    reference = FeatureExtractorCLIP("clip-vit-b-32", ["clip"], feature_extractor_weights_path=str(archive))
    expected = reference(torch.from_numpy(pictures()))[0].numpy()
    network = open_network("clip", weights=write_clip(tmp_path), device=CPU)
    found, logits = network.classify(pictures())
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert logits is None and network.recipe["size"] == 64 and network.dimension == 32
    assert re.fullmatch(r"fd_clip_[0-9a-f]{8}", network.distance)


def test_a_torchscript_archive_is_never_run(tmp_path: Path):
    archive = tmp_path / "clip.pt"
    torch.jit.trace(make_clip(), torch.zeros(1, 3, 64, 64)).save(archive)
    with pytest.raises(InputError, match=r"clip\.pt \(sha256 .*\) is no file of plain PyTorch tensors"):
        open_network("clip", weights=archive, device=CPU)


@pytest.mark.parametrize("name", ["dinov2", "clip", "inception"])
def test_the_weights_of_another_network_are_refused(name: str, dinov2_file: Path, tmp_path: Path):
    path = write_clip(tmp_path) if name != "clip" else dinov2_file
    with pytest.raises(InputError, match=sha256_file(path)) as caught:
        open_network(name, weights=path, device=CPU)
    assert "does not fit" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("extra", ["register_tokens", "blocks.0.mlp.w12.weight"])
def test_unknown_variants_of_dinov2_are_named(extra: str, dinov2_file: Path, tmp_path: Path):
    path = tmp_path / "variant.pth"
    torch.save(torch.load(dinov2_file, weights_only=True) | {extra: torch.zeros(1)}, path)
    with pytest.raises(InputError, match="register tokens or SwiGLU"):
        open_network("dinov2", weights=path, device=CPU)
