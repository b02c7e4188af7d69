"""The augmentation that training obeys: what data/augment/policy.json says, with ADA's p where it adapts."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from stages.errors import InputError
from stages.trainer import diffaugment
from stages.trainer.ada import pipe
from stages.trainer.ada.control import Control

PIPES = {"diffaugment": diffaugment.augment, "ada": pipe.augment}
PACE = ("target", "interval", "kimg")  # of ADA's p


@dataclass(frozen=True)
class Policy:
    """What real and generated pictures pass before the discriminator, as `augment` wrote it."""

    kind: str  # none, diffaugment, ada
    transforms: tuple[str, ...]
    p: float
    adaptive: bool
    target: float
    interval: int
    kimg: float
    mirror: bool

    @classmethod
    def read(cls, written: dict[str, Any]) -> "Policy":
        """Return the policy of a policy.json, which also holds what is meant for people.

        Raises:
            InputError: it lacks something, as one of an earlier version does.
        """
        missing = [name for name in cls.__dataclass_fields__ if name not in written]
        if missing:
            raise InputError(f"data/augment/policy.json lacks {', '.join(missing)}; run `python -m stages.augment`")
        values = {name: written[name] for name in cls.__dataclass_fields__}
        return cls(**values | {"transforms": tuple(values["transforms"])})

    @property
    def adapts(self) -> bool:
        """Whether p follows the discriminator."""
        return self.kind == "ada" and self.adaptive

    def obeyed(self) -> dict[str, Any]:
        """Return what decides a training's course: ADA's pace only where p adapts."""
        idle = {"none": ("transforms", "p", "adaptive", *PACE), "diffaugment": ("adaptive", *PACE)}
        left_out = idle.get(self.kind, () if self.adaptive else PACE)
        values = {name: value for name, value in asdict(self).items() if name not in left_out}
        return values | ({"transforms": list(self.transforms)} if "transforms" in values else {})


class Augmentation:
    """A policy at work: augments pictures, and moves ADA's p by what the discriminator says of real ones."""

    def __init__(self, policy: Policy, device: torch.device) -> None:
        self.policy = policy
        self.p = policy.p
        self.control = Control(policy.target, policy.interval, policy.kimg, device) if policy.adapts else None

    def __call__(self, pictures: Tensor, random: torch.Generator) -> Tensor:
        """Augment pictures in [-1, 1], shape (N, C, S, S), at the present p; differentiable, also twice."""
        if self.policy.kind == "none":
            return pictures
        return PIPES[self.policy.kind](pictures, self.policy.transforms, self.p, random)

    def observe(self, real_sign: Tensor, batch: int) -> None:
        """Take one step's mean sign of the discriminator's output on augmented real pictures, a scalar tensor."""
        if self.control:
            self.p = self.control.follow(self.p, real_sign, batch)

    def export_state(self) -> dict[str, Any]:
        """Return what a state must hold for p to go on exactly; empty where p is fixed."""
        return {"p": self.p, **self.control.export_state()} if self.control else {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state's p; where p is fixed, or the state has none, the policy's stays."""
        if self.control and state:
            self.p = float(state["p"])
            self.control.restore(state)
