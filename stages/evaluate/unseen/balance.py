"""What the discriminator said of real, generated and hold-out pictures over a training, and one line that reads it."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.errors import InputError

LOGITS = ("real_logit", "fake_logit", "train_logit", "holdout_logit", "generated_logit")
SIGNS = ("real_sign", "fake_sign", "separation")
OTHERS = ("loss_generator", "loss_discriminator", "r1", "p", "r_t", "diversity")
ALONE = (
    "loss",
    "unexplained",
    "loss_t0",
    "loss_t1",
    "loss_t2",
    "loss_t3",
    "l1",
    "perceptual",
    "kl",
    "psnr",
)  # without one
SHOWN = 0.05  # of separation: a smaller change over half a training is none to speak of
SURE = 2.0  # standard errors
ALWAYS = 0.97  # separation from which on the discriminator is almost never wrong; as in the training's alerts
MEMORISES = 0.5  # r_v: hold-out pictures are nearer to generated than to training ones
FEWEST = 4  # ticks of which a change can be told


@dataclass(frozen=True)
class Change:
    """A series' mean over the last quarter of its ticks, and its change over the last half with standard error."""

    level: float
    change: float
    error: float

    def word(self, rises: str, falls: str, steady: str) -> str:
        """Return the word for its direction, which must be surely there and large enough to matter."""
        if abs(self.change) <= max(SURE * self.error, SHOWN):
            return steady
        return rises if self.change > 0 else falls


@dataclass(frozen=True)
class Balance:
    """The series of a training by name, each as long as `kimg`, None where a tick has no value; and their reading.

    `overfitting` is r_v = (train - holdout) / (train - generated) of the mean logits, 0 where hold-out pictures are
    taken for training ones and 1 where they are taken for generated ones (Karras et al. 2020, "Training generative
    adversarial networks with limited data", equation 1).
    """

    kimg: tuple[float, ...]
    series: dict[str, tuple[float | None, ...]]
    separation: Change | None
    overfitting: Change | None
    loss: Change | None = None  # of a training without a discriminator

    @property
    def reading(self) -> str:
        """Return in one line what the series show."""
        if not any(name in self.series for name in (*LOGITS, *SIGNS)):
            return self._read_loss()
        return f"{self._read_separation()} {self._read_overfitting()}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        changes = {"separation": self.separation, "overfitting": self.overfitting}
        summary = {name: None if change is None else vars(change) for name, change in changes.items()}
        if self.loss is not None:
            summary["loss"] = vars(self.loss)
        series = {name: list(values) for name, values in self.series.items()}
        return {"reading": self.reading, **summary, "kimg": list(self.kimg), "series": series}

    def _read_separation(self) -> str:
        found = self.separation
        if found is None:
            return f"Fewer than {FEWEST} ticks tell real and generated pictures apart: no reading."
        way = found.word("drift apart", "come together", "stay balanced" if found.level <= ALWAYS else "stay apart")
        end = f"separation {found.level:.2f} of 1 at the end, {found.change:+.2f} over the last half"
        won = "; the discriminator is almost never wrong" if found.level > ALWAYS else ""
        return f"The discriminator's outputs on real and generated pictures {way} ({end}){won}."

    def _read_loss(self) -> str:
        if self.loss is None:
            return f"This training has no discriminator; fewer than {FEWEST} ticks tell how its loss goes: no reading."
        share = self.loss.change / max(abs(self.loss.level), 1e-12)
        still = "it still learns: a larger budget_kimg would help" if share < -SHOWN else "it has levelled off"
        return (
            f"This training has no discriminator. Its loss is {self.loss.level:.4f} at the end, {share:+.0%} over the "
            f"last half; {still}."
        )

    def _read_overfitting(self) -> str:
        found = self.overfitting
        if found is None:
            return "What it says of hold-out pictures was not recorded often enough to read."
        like = "generated than training" if found.level > MEMORISES else "training than generated"
        way = found.word("rising", "falling", "steady")
        heart = ": it knows the training pictures by heart" if found.level > MEMORISES else ""
        return f"It takes hold-out pictures rather for {like} ones (r_v {found.level:.2f}, {way}){heart}."


def read_balance(curve: list[dict[str, Any]]) -> Balance:
    """Read the rows of a training's curve.json, in order of their kimg.

    Raises:
        InputError: there are no rows, or one has no kimg.
    """
    if not curve:
        raise InputError("curve.json holds no ticks; train for at least one tick_kimg")
    kimg = [_number(row.get("kimg")) if isinstance(row, dict) else None for row in curve]
    if (bad := next((place for place, value in enumerate(kimg) if value is None), None)) is not None:
        raise InputError(
            f"row {bad} of curve.json is {str(curve[bad])[:80]}; expected an object with kimg; train again"
        )
    names = (*LOGITS, *SIGNS, *OTHERS, *ALONE)
    series = {name: tuple(_number(row.get(name)) for row in curve) for name in names}
    series["overfitting"] = tuple(_overfitting(row) for row in curve)
    present = {name: values for name, values in series.items() if any(value is not None for value in values)}
    known = tuple(value for value in kimg if value is not None)
    separation, overfitting, loss = (_change(known, series[name]) for name in ("separation", "overfitting", "loss"))
    return Balance(known, present, separation, overfitting, loss)


def _overfitting(row: dict[str, Any]) -> float | None:
    """Return r_v of a tick, or None where generated pictures get no lower logits than training ones."""
    train, holdout, generated = (_number(row.get(f"{name}_logit")) for name in ("train", "holdout", "generated"))
    if train is None or holdout is None or generated is None or train <= generated:
        return None
    return (train - holdout) / (train - generated)


def _change(kimg: tuple[float, ...], values: tuple[float | None, ...]) -> Change | None:
    """Return the level at the end and the change over the last half, by a straight line through its ticks."""
    pairs = [(at, value) for at, value in zip(kimg, values, strict=True) if value is not None]
    if len(pairs) < FEWEST:
        return None
    found = np.array([value for _, value in pairs])
    half = max(3, math.ceil(len(pairs) / 2))
    x, y = np.array([at for at, _ in pairs])[-half:], found[-half:]
    centred = x - x.mean()
    total = float(np.square(centred).sum())
    slope = float(centred @ y) / total if total else 0.0
    rest = y - y.mean() - slope * centred
    error = math.sqrt(float(np.square(rest).sum()) / (half - 2) / total) if total else math.inf
    span = float(x[-1] - x[0])
    return Change(float(found[-max(1, len(pairs) // 4) :].mean()), slope * span, error * span)


def _number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
