"""What a denoiser is told beside the timestep: nothing, a class, or a caption; and how often it is hidden."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stages.dataset import ImageDataset
from stages.errors import InputError
from stages.settings.diffusion import DiffusionSettings

if TYPE_CHECKING:
    from stages.generators.diffusion.text import TextEncoder


class Conditions(ABC):
    """The conditions of a train split's pictures."""

    class_names: tuple[str, ...] = ()
    encoder: "TextEncoder | None" = None
    width: int | None = None  # of token embeddings

    @abstractmethod
    def rows(self, positions: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return what the denoiser is told of these pictures, on the device; nothing of those that are hidden."""

    def of_grid(self, count: int) -> dict[str, Any]:
        """Return what a tick's grid is asked for."""
        return {}

    def of_data(self, numbers: range, total: int) -> dict[str, Any]:
        """Return the conditions of `total` training pictures evenly apart, those of these numbers."""
        return {}


class NoConditions(Conditions):
    """An unconditional model."""

    def rows(self, positions: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return nothing."""
        return ()


class ClassConditions(Conditions):
    """The data's classes; one label more stands for none."""

    def __init__(self, where: str, dataset: ImageDataset, device: torch.device) -> None:
        self.class_names = tuple(dataset.description.get("class_names", ()))
        self.device = device
        if len(self.class_names) < 2:
            raise InputError(
                f"{where}.condition is class, but the pictures have {len(self.class_names)} classes; "
                "sub-folders are classes, expected two or more"
            )
        labels = np.array([row["label"] for row in dataset.rows], np.int64)
        self.labels = torch.from_numpy(np.where(labels < 0, len(self.class_names), labels))

    def rows(self, positions: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return labels, int64 (N,)."""
        labels = torch.where(hidden, len(self.class_names), self.labels[positions])
        return (labels.to(self.device),)

    def of_grid(self, count: int) -> dict[str, Any]:
        """Return the classes in turn."""
        return {"label": np.arange(count, dtype=np.int64) % len(self.class_names)}

    def of_data(self, numbers: range, total: int) -> dict[str, Any]:
        """Return classes as frequent as among the training pictures."""
        return {"label": self.labels.numpy()[evenly(len(self.labels), numbers, total)]}


class TextConditions(Conditions):
    """Captions, by token embeddings of a frozen encoder."""

    def __init__(self, where: str, settings: DiffusionSettings, dataset: ImageDataset, device: torch.device) -> None:
        from stages.generators.diffusion.text import open_text_encoder
        from stages.trainer.denoising.captions import CaptionEmbeddings

        self.encoder = open_text_encoder(settings.text.encoder, settings.text.length)
        self.width = self.encoder.width
        self.captions = [row["caption"] for row in dataset.rows]
        keys = [row["key"] for row in dataset.rows]
        self._refuse_long(settings, dataset)
        self.embeddings = CaptionEmbeddings(self.captions, self.encoder, device, keys=keys)
        self.prompts = list(settings.text.prompts)

    def _refuse_long(self, settings: DiffusionSettings, dataset: ImageDataset) -> None:
        """Read what will be drawn at ticks and in evaluation now, so that what is too long is told before training."""
        assert self.encoder is not None
        captions = [row["caption"] for row in ImageDataset(dataset.folder).rows if row["caption"]]
        self.encoder.tokenizer.encode([*settings.text.prompts, settings.text.negative, *captions])

    def rows(self, positions: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """Return token embeddings (N, L, D) and their mask (N, L)."""
        told = self.embeddings.rows(positions.numpy())
        hide = hidden.to(told[0].device)
        return tuple(
            torch.where(hide.reshape(-1, *[1] * (own.dim() - 1)), empty, own)
            for own, empty in zip(told, self.embeddings.empty(), strict=True)
        )

    def of_grid(self, count: int) -> dict[str, Any]:
        """Return the prompts of the settings in turn, or captions of the data."""
        prompts: Sequence[str] = self.prompts or [self.captions[n] for n in evenly(len(self.captions), range(8), 8)]
        return {"prompts": [prompts[number % len(prompts)] for number in range(count)]}

    def of_data(self, numbers: range, total: int) -> dict[str, Any]:
        """Return captions of training pictures."""
        return {"prompts": [self.captions[n] for n in evenly(len(self.captions), numbers, total)]}


def evenly(count: int, numbers: range, total: int) -> np.ndarray:
    """Return for each number below `total` a position among `count`, evenly apart."""
    return (np.array(numbers, np.int64) % total) * count // total


def open_conditions(where: str, settings: DiffusionSettings, dataset: ImageDataset, device: torch.device) -> Conditions:
    """Return the conditions that the settings ask for.

    Raises:
        InputError: the pictures have no classes or captions, or the text encoder is not there.
    """
    if settings.condition == "class":
        return ClassConditions(where, dataset, device)
    if settings.condition == "text":
        return TextConditions(where, settings, dataset, device)
    return NoConditions()
