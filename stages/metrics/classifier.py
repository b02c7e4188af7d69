"""A small residual classifier and its training: deterministic by seed, with a budget in pictures seen."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stages.errors import InputError
from stages.progress import progress_bar

LARGEST = 64  # pixels: larger pictures are averaged down, which keeps the cost of a picture constant
GRID = 16  # side of the first maps, whatever the pictures' side
WIDTHS = (32, 64, 128)
DIMENSION = WIDTHS[-1]
FEWEST = 20  # pictures of a class without which nothing can be said of it
CHUNK = 128  # pictures that are classified at once
WARM_UP = 0.2  # share of the budget in which the learning rate rises


@dataclass(frozen=True)
class TrainingRecipe:
    """All that decides a training beside pictures, labels, seed and size; `shift` is a share of the side."""

    kimg: float = 36.0
    batch: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    shift: float = 1 / 8
    mirror: bool = False  # only where left and right may be swapped

    @property
    def steps(self) -> int:
        """Number of optimizer steps, at least two, which the learning rate's cycle needs."""
        return max(round(self.kimg * 1000 / self.batch), 2)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, with the parts that are constants of the code."""
        constant = {"optimizer": "AdamW", "schedule": "one cycle", "sampling": "classes in equal shares"}
        return asdict(self) | constant | {"widths": list(WIDTHS)}


class Block(nn.Module):
    """Two 3x3 convolutions beside an identity or a 1x1 projection (He et al. 2016, basic block)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.second, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        changes = stride != 1 or before != after
        self.project = nn.Conv2d(before, after, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, before, H, W) to (N, after, H / stride, W / stride)."""
        inner = F.relu(self.norm1(self.first(maps)), inplace=True)
        return F.relu(self.norm2(self.second(inner)) + self.project(maps), inplace=True)


class Classifier(nn.Module):
    """A residual network of 0.3 million parameters over square pictures of one size (16 to 64 pixels)."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.size, self.classes = size, classes
        stride = max(size // GRID, 1)
        kernel = 2 * stride + 1
        self.stem, self.norm = nn.Conv2d(3, WIDTHS[0], kernel, stride, stride, bias=False), nn.BatchNorm2d(WIDTHS[0])
        befores = (WIDTHS[0], *WIDTHS[:-1])
        blocks = [
            Block(before, after, 1 if before == after else 2) for before, after in zip(befores, WIDTHS, strict=True)
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(DIMENSION, classes)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Map floats in [-1, 1], (N, 3, size, size), to pooled features (N, 128) and logits (N, classes)."""
        maps = self.blocks(F.relu(self.norm(self.stem(pictures)), inplace=True))
        features = maps.mean(dim=(2, 3))
        return features, self.head(features)


def input_size(side: int) -> int:
    """Return the side to which pictures of this side are brought before they are classified."""
    return min(side, LARGEST)


def prepare(pictures: Tensor, size: int) -> Tensor:
    """Map pictures (N, 1 or 3, H, W), uint8 or floats in [0, 255], to floats in [-1, 1], (N, 3, size, size).

    Grey is repeated in all channels; larger pictures are averaged over areas.

    Raises:
        InputError: the pictures have another shape or type.
    """
    fits = pictures.dtype == torch.uint8 or pictures.is_floating_point()
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or not fits:
        found = f"{pictures.dtype} of shape {tuple(pictures.shape)}"
        raise InputError(f"The classifier was given {found}; it takes (N, 1 or 3, H, W), uint8: convert to RGB first")
    floats = pictures.float() / 127.5 - 1
    if floats.shape[2:] != (size, size):
        larger = min(floats.shape[2:]) >= size
        floats = F.interpolate(floats, (size, size), mode="area" if larger else "bilinear")
    return floats.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def train(
    pixels: np.ndarray,
    labels: np.ndarray,
    classes: int,
    recipe: TrainingRecipe,
    seed: int,
    device: torch.device,
    what: str = "classifier",
) -> Classifier:
    """Train a classifier on uint8 pictures (N, C, H, W) with labels 0 to classes - 1; -1 is left out.

    The same arguments give the same weights on the same machine and number of threads; every class that has pictures
    is seen equally often, since classes are unequal and a probe must know the rare ones too.

    Raises:
        InputError: no picture has a label, or the shapes do not fit.
    """
    check_labels(pixels, labels, classes)
    size = input_size(pixels.shape[-1])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reset the GPU's too
        network = Classifier(size, classes)
    network = network.to(device).to(memory_format=torch.channels_last).train()
    order = balanced_order(labels, recipe.steps * recipe.batch, seed)
    random = torch.Generator().manual_seed(seed)
    reduced = reduce(pixels, size)
    targets = torch.from_numpy(labels.astype(np.int64))
    with progress_bar(what, len(order)) as bar, exact_convolutions():
        optimizer, schedule = _optimization(network, recipe)
        for chosen in torch.from_numpy(order).split(recipe.batch):
            pictures = prepare(augment(reduced[chosen], recipe, random).to(device), size)
            logits = network(pictures)[1]
            loss = F.cross_entropy(logits, targets[chosen].to(device), label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.update(len(chosen))
    return network.eval()


def _optimization(
    network: nn.Module, recipe: TrainingRecipe
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW and its single cycle (Smith and Topin 2019), which is why few thousand pictures are enough."""
    optimizer = torch.optim.AdamW(network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=WARM_UP
    )
    return optimizer, schedule


def exact_convolutions() -> Any:
    """Return a context in which cuDNN repeats itself: no TF32, no search for the fastest kernel."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def check_labels(pixels: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """Refuse what cannot be a labelled set.

    Raises:
        InputError: numbers of pictures and labels differ, no picture is labelled, or a label is out of range.
    """
    if labels.shape != (len(pixels),):
        raise InputError(f"{len(pixels)} pictures have labels of shape {labels.shape}; give one label per picture")
    if not (labels >= 0).any():
        raise InputError("None of the pictures has a label (all are -1); a classifier needs classes")
    if labels.max() >= classes:
        raise InputError(f"A label is {labels.max()}, but there are {classes} classes; labels count from 0")


def balanced_order(labels: np.ndarray, total: int, seed: int) -> np.ndarray:
    """Return positions of pictures, `total` of them, in which classes alternate and each is drawn without repetition.

    A round shows every class once, in random order; a class starts anew only when all its pictures were shown.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, 0]))
    present = np.unique(labels[labels >= 0])
    rounds = -(-total // len(present))
    places = random.permuted(np.tile(np.arange(len(present)), (rounds, 1)), axis=1)
    order = np.empty_like(places)
    for number, label in enumerate(present):
        members = np.flatnonzero(labels == label)
        own = np.random.Generator(np.random.Philox(key=[seed, int(label) + 1]))  # more of one class changes no other's
        cycles = -(-rounds // len(members))
        order[places == number] = np.concatenate([own.permutation(members) for _ in range(cycles)])[:rounds]
    return order.ravel()[:total]


def reduce(pixels: np.ndarray, size: int) -> Tensor:
    """Return the pictures at the classifier's size, uint8 (N, C, size, size), so that they are reduced only once."""
    pictures = torch.from_numpy(np.ascontiguousarray(pixels))
    if pictures.shape[2:] == (size, size):
        return pictures
    parts = [F.interpolate(part.float(), (size, size), mode="area") for part in pictures.split(CHUNK)]
    return torch.cat([part.round().to(torch.uint8) for part in parts])


def augment(pictures: Tensor, recipe: TrainingRecipe, random: torch.Generator) -> Tensor:
    """Shift each picture of (N, C, H, W) by whole pixels, repeating its border, and mirror half of them if told."""
    count, _, height, width = pictures.shape
    reach = round(width * recipe.shift)
    rows = _shifted(height, reach, count, random)
    columns = _shifted(width, reach, count, random)
    if recipe.mirror:
        turned = torch.rand(count, 1, generator=random) < 0.5
        columns = torch.where(turned, columns.flip(1), columns)
    picked = torch.arange(count)[:, None, None]
    return pictures.permute(0, 2, 3, 1)[picked, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _shifted(side: int, reach: int, count: int, random: torch.Generator) -> Tensor:
    shift = torch.randint(-reach, reach + 1, (count, 1), generator=random)
    return (torch.arange(side)[None] - shift).clamp(0, side - 1)


@torch.inference_mode()
def classify(network: Classifier, pictures: np.ndarray, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Return features (N, 128) and logits (N, classes), float32, of pictures (N, 1 or 3, H, W) as in `prepare`."""
    found = []
    with exact_convolutions():
        for part in torch.from_numpy(np.ascontiguousarray(pictures)).split(CHUNK):
            features, logits = network(prepare(part.to(device), network.size))
            found.append((features.float().cpu().numpy(), logits.float().cpu().numpy()))
    return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])
