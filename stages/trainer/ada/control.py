"""ADA's control of p by the overfitting heuristic r_t (Karras 2020, section 3.1)."""

from typing import Any

import torch
from torch import Tensor


class Control:
    """Moves p towards the strength at which r_t = E[sign D(real)] is on target.

    r_t is measured over `interval` steps; p could go from 0 to 1 within `kimg` thousand pictures.
    """

    def __init__(self, target: float, interval: int, kimg: float, device: torch.device) -> None:
        self.target, self.interval, self.kimg = target, interval, kimg
        self.signs = torch.zeros((), device=device)  # summed there: reading it waits for the device
        self.steps = 0

    def follow(self, p: float, real_sign: Tensor, batch: int) -> float:
        """Take one step's mean sign of D on real pictures; return the p of the next step, in [0, 1]."""
        self.signs = self.signs + real_sign
        self.steps += 1
        if self.steps < self.interval:
            return p
        r_t = float(self.signs) / self.steps
        change = batch * self.steps / (self.kimg * 1000)
        self.signs, self.steps = torch.zeros_like(self.signs), 0
        return min(1.0, max(0.0, p + change * ((r_t > self.target) - (r_t < self.target))))

    def export_state(self) -> dict[str, Any]:
        """Return the interval so far."""
        return {"signs": float(self.signs), "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on within an interval."""
        self.signs.fill_(state["signs"])
        self.steps = int(state["steps"])
