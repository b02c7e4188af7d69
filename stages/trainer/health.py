"""Tells early when a training fails: not a number, collapse, a discriminator that has won."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stages.settings.augment import LEAKING

WINDOW = 3  # ticks in a row: one bad tick is normal
COLLAPSED = 0.3  # diversity of generated pictures relative to real ones
UNEXPLAINED = 0.95  # share of what a denoiser is to predict that it does not
SATURATED = 0.97  # mean sign of the discriminator's output on real minus fake, half the difference


@dataclass(frozen=True)
class Symptom:
    """A condition on a row of the curve, and what to try when it lasts."""

    name: str
    key: str
    bound: float
    above: bool
    advice: str

    def shows(self, row: dict[str, Any]) -> bool:
        """Tell whether one row shows the symptom."""
        value = row.get(self.key)  # not every training has each: p is ADA's
        return value is not None and bool(value > self.bound if self.above else value < self.bound)


SYMPTOMS = (
    Symptom(
        "collapse",
        "diversity",
        COLLAPSED,
        False,
        "generated pictures resemble one another; lower discriminator_lr (lr) or set r1_gamma",
    ),
    Symptom(
        "discriminator wins",
        "separation",
        SATURATED,
        True,
        "it is almost never wrong; raise augment.p, set label_smoothing 0.1 or lower discriminator_lr",
    ),
    Symptom(
        "augmentation leaks",
        "p",
        LEAKING,
        True,
        "so strong a p begins to show in generated pictures; add data, go on from weights of similar data (--adopt), "
        "or lower discriminator_width",
    ),
    Symptom(
        "learns nothing",
        "unexplained",
        UNEXPLAINED,
        True,
        "the denoiser predicts hardly better than zero; raise lr, lower warmup_kimg or widen the network",
    ),
)


def diversity(pictures: Tensor) -> float:
    """Return the mean distance between pairs of pictures, root mean square over pixels."""
    flat = pictures.detach().float().flatten(1)
    return float(torch.pdist(flat).mean() / flat.shape[1] ** 0.5)


def find_alerts(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the alerts of a whole curve: a symptom over WINDOW ticks in a row gives one, when it begins to last."""
    alerts = []
    for symptom in SYMPTOMS:
        lasting = 0
        for row in curve:
            lasting = lasting + 1 if symptom.shows(row) else 0
            if lasting == WINDOW:
                value = round(row[symptom.key], 4)
                alerts.append(
                    {"kimg": row["kimg"], "alert": symptom.name, symptom.key: value, "advice": symptom.advice}
                )
    return sorted(alerts, key=lambda alert: alert["kimg"])


def unhealthy_losses(losses: dict[str, float]) -> str:
    """Return which losses are not finite, or an empty text."""
    bad = [f"{name} is {value}" for name, value in losses.items() if value != value or abs(value) == float("inf")]
    return ", ".join(bad)
