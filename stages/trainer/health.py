"""Tells early when a training fails: not a number, collapse, divergence, a game that one of the two networks has won.

A symptom is read from a window of ticks, never from one: healthy trainings have bad ticks, and all of them begin with
bad pictures. What a GAN's losses mean differs from objective to objective, so its symptoms rest on the pictures: on
`gap` and `nearest`, which Likeness measures at every tick, and use logits and gradients to tell why.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from stages.settings.augment import LEAKING

Row = dict[str, Any]
Rows = list[Row]

# Where thresholds lie is measured: on 63 short trainings of tests/bench/health.py, seeds 0 to 2, whose extremes are
# given. None depends on the length of a tick in kimg: windows are of ticks, which a user makes as long as the training
# is slow, and what only steps can bring about is counted in steps.
WINDOW = 3  # ticks in a row: one bad tick is normal
LONG = 5  # ticks over which pictures have to get better; two such windows are compared
FRESH = 750  # steps of the generator; before, pictures may all be alike: healthy ones were for up to 500 steps
COLLAPSED = 0.3  # diversity of generated pictures relative to real ones; healthy ones come to 0.8 and more
REPEATED = 0.3  # nearest; healthy ones lay above 0.4 at the worst tick and above 1 in the end, copies at 0
UNEXPLAINED = 0.95  # share of what a denoiser is to predict that it does not
SATURATED = 0.97  # mean sign of the discriminator's output on real minus fake, half the difference; healthy: to 0.95
BLIND = 0.15  # separation below which it tells nothing; healthy ones kept 0.27 and more, even of good pictures
FAR = 1.0  # gap of the real pictures' mean alone; over LONG ticks without progress healthy ones stayed below 0.72
BETTER = 0.9  # of the gap of the window before: less of a fall is none
STILL = 0.02  # spread of the gap over a window, relative to it: pictures do not change; far healthy ones: 0.22
VANISHED = 0.01  # of the generator's highest gradient: what Adam cannot make up for and rounding eats
GROWN = 30.0  # times the highest level that lasted; healthy ones grew up to 5.4 times within a window
WORSE = 2.0  # times the best gap that lasted, and then beyond FAR; healthy ones never were beyond FAR again
SIDE = 16  # pixels that pictures are compared at: colours and layout, at any resolution
PICTURES = 256  # that are compared


def diversity(pictures: Tensor) -> float:
    """Return the mean distance between pairs of pictures, root mean square over pixels."""
    flat = pictures.detach().float().flatten(1)
    return float(torch.pdist(flat).mean() / flat.shape[1] ** 0.5)


class Likeness:
    """How like the real pictures the generated ones are, by distances between pixels at 16 x 16.

    Pictures are what `shrink` returns, at least two of each kind.
    """

    def __init__(self, real: Tensor) -> None:
        self.real = real
        self.pairs = float(torch.pdist(self.real).mean())
        self.nearest = nearest_share(self.real)
        self.single = self._energy(self.real.mean(0, keepdim=True), 0.0)

    def _energy(self, pictures: Tensor, pairs: float) -> float:
        """Return the energy distance (Szekely, Rizzo 2013) to the real ones; `pairs`: their own mean distance."""
        return 2 * float(torch.cdist(pictures, self.real).mean()) - pairs - self.pairs

    def compare(self, generated: Tensor) -> dict[str, float]:
        """Return gap and nearest of generated pictures.

        `gap`: energy distance to the real pictures, in units of that of their mean picture; 0: the same distribution.
        `nearest`: mean distance to the nearest other one in units of the mean distance, relative to that of real
        pictures; 0: each is there twice.
        """
        gap = self._energy(generated, float(torch.pdist(generated).mean())) / max(self.single, 1e-9)
        return {"gap": gap, "nearest": nearest_share(generated) / max(self.nearest, 1e-9)}


def shrink(pictures: Tensor) -> Tensor:
    """Return pictures, shape (N, C, H, W) in [-1, 1], at 16 x 16 or below, each as a row of pixels, float64."""
    side = min(SIDE, pictures.shape[-1])
    return adaptive_avg_pool2d(pictures.detach().float(), side).flatten(1).double()


def nearest_share(pictures: Tensor) -> float:
    """Return the mean distance to the nearest other picture in units of the mean distance of pairs."""
    distances = torch.cdist(pictures, pictures).fill_diagonal_(float("inf"))
    return float(distances.min(1).values.mean() / torch.pdist(pictures).mean().clamp(min=1e-9))


class Course:
    """The values of a curve as symptoms ask for them: all of them end at the row `at`."""

    def __init__(self, curve: Rows) -> None:
        self.curve = curve
        self.at = 0
        self._columns: dict[str, list[float | None]] = {}
        self._records: dict[tuple[str, bool], list[float | None]] = {}

    def column(self, key: str) -> list[float | None]:
        """Return a value of all rows; norms of gradients, which short ticks lack, are those of the last that has."""
        if key not in self._columns:
            self._columns[key] = self._read(key)
        return self._columns[key]

    def _read(self, key: str) -> list[float | None]:
        if key == "logits":  # how far apart the two kinds are: where zero lies is arbitrary for some objectives
            pairs = zip(self.column("real_logit"), self.column("fake_logit"), strict=True)
            return [None if real is None or fake is None else abs(real - fake) for real, fake in pairs]
        found: list[float | None] = []
        for row in self.curve:
            last = found[-1] if found and key.startswith("gradient_") else None
            found.append(row.get(key, last))
        return found

    def last(self, key: str, count: int, skip: int = 0) -> list[float]:
        """Return the last values, without the `skip` newest; empty where one of them is missing."""
        end = self.at + 1 - skip
        values = self.column(key)[max(end - count, 0) : end]
        known = [value for value in values if value is not None]
        return known if len(known) == count else []

    def peak(self, key: str) -> float:
        """Return the highest value before the present window, 0 where there is none."""
        return max(
            (value for value in self.column(key)[: max(self.at + 1 - WINDOW, 0)] if value is not None), default=0
        )

    def record(self, key: str, highest: bool) -> float | None:
        """Return the highest or lowest value before the present window that lasted: of medians of three ticks."""
        if (key, highest) not in self._records:
            self._records[key, highest] = self._find_records(key, max if highest else min)
        before = self.at - WINDOW
        return self._records[key, highest][before] if before >= 0 else None

    def _find_records(self, key: str, choose: Callable[[float, float], float]) -> list[float | None]:
        found: list[float | None] = []
        values, record = self.column(key), None
        for end in range(1, len(values) + 1):
            known = [value for value in values[max(end - WINDOW, 0) : end] if value is not None]
            if len(known) == WINDOW:
                record = median(known) if record is None else choose(record, median(known))
            found.append(record)
        return found

    @property
    def fresh(self) -> bool:
        """Whether the generator has made too few steps to be judged; trainings without one never are."""
        steps = self.curve[self.at].get("generator_steps")
        return steps is not None and steps < FRESH

    @property
    def stuck(self) -> bool:
        """Whether pictures are far from real ones, and no nearer than a window before."""
        now, before = self.last("gap", LONG), self.last("gap", LONG, skip=LONG)
        return bool(now and before and not self.fresh and min(now) > FAR and fmean(now) > BETTER * fmean(before))

    @property
    def separation(self) -> float | None:
        """The mean separation over a window; None for critics, which have none."""
        values = self.last("separation", LONG)
        return fmean(values) if values else None


def collapses(course: Course) -> str:
    """Return the value that shows a collapse, or an empty text; pictures that never changed are none."""
    if course.fresh:
        return ""
    if all_below(course.last("nearest", WINDOW), REPEATED):
        return "nearest"
    alike = all_below(course.last("diversity", WINDOW), COLLAPSED)
    return "diversity" if alike and not stands_still(course) else ""


def discriminator_wins(course: Course) -> str:
    """It separates almost always while pictures do not get better: of healthy trainings, many separate for long."""
    separation = course.separation
    return "separation" if course.stuck and separation is not None and separation > SATURATED else ""


def discriminator_is_blind(course: Course) -> str:
    """It does not tell pictures apart that are far from real ones."""
    separation = course.separation
    return "separation" if course.stuck and separation is not None and separation < BLIND else ""


def generator_stalls(course: Course) -> str:
    """Pictures do not get better and the discriminator does not say why, or stay the same, or no gradient comes."""
    if gradient_vanishes(course):
        return "gradient_generator"
    explained = discriminator_wins(course) or discriminator_is_blind(course)
    if not course.stuck or (explained and not stands_still(course)):
        return ""
    return "gap"


def gradient_vanishes(course: Course) -> bool:
    """Tell whether the generator's gradient is a hundredth of what it was, while pictures are still far off."""
    if not all_above(course.last("gap", WINDOW), FAR):
        return False
    return all_below(course.last("gradient_generator", WINDOW), VANISHED * course.peak("gradient_generator"))


def stands_still(course: Course) -> bool:
    """Tell whether pictures are far off and have not changed over a window."""
    gaps = course.last("gap", LONG)
    return all_above(gaps, FAR) and max(gaps) - min(gaps) < STILL * fmean(gaps)


def diverges(course: Course) -> str:
    """Pictures are much worse than they were, or logits or gradients grow out of all they were."""
    best, gaps = course.record("gap", highest=False), course.last("gap", WINDOW)
    if best is not None and gaps and min(gaps) > max(FAR, WORSE * best):
        return "gap"
    for key in ("logits", "gradient_generator", "gradient_discriminator"):
        highest, values = course.record(key, highest=True), course.last(key, WINDOW)
        if highest and values and min(values) > GROWN * highest:
            return "real_logit" if key == "logits" else key
    return ""


def leaks(course: Course) -> str:
    """ADA's p is so strong that its transforms begin to show."""
    return "p" if all_above(course.last("p", WINDOW), LEAKING) else ""


def learns_nothing(course: Course) -> str:
    """A denoiser predicts hardly better than zero."""
    return "unexplained" if all_above(course.last("unexplained", WINDOW), UNEXPLAINED) else ""


def all_below(values: list[float], bound: float) -> bool:
    """Tell whether there are values and all lie below a bound."""
    return bool(values) and max(values) < bound


def all_above(values: list[float], bound: float) -> bool:
    """Tell whether there are values and all lie above a bound."""
    return bool(values) and min(values) > bound


@dataclass(frozen=True)
class Symptom:
    """What may be wrong, how it shows (the key of the value that shows it, or an empty text), and what to try."""

    name: str
    shows: Callable[[Course], str]
    advice: str


SYMPTOMS = (
    Symptom(
        "collapse",
        collapses,
        "generated pictures resemble one another; lower generator_lr or discriminator_lr (lr), set r1_gamma "
        "(gradient_penalty for objective wasserstein) or minibatch_stddev, or raise batch",
    ),
    Symptom(
        "discriminator wins",
        discriminator_wins,
        "it is almost never wrong and pictures do not get better; raise augment.p or set augment.kind, set "
        "label_smoothing 0.1, r1_gamma or spectral_norm, lower discriminator_lr or discriminator_steps, or set "
        "objective non_saturating",
    ),
    Symptom(
        "discriminator learns nothing",
        discriminator_is_blind,
        "it does not tell apart what plainly differs; lower r1_gamma, r2_gamma, gradient_penalty, dropout or augment.p,"
        " or raise discriminator_lr, discriminator_steps or the discriminator's width",
    ),
    Symptom(
        "generator stalls",
        generator_stalls,
        "pictures are far from real ones and get no better; raise generator_lr, lower discriminator_lr or "
        "discriminator_steps, use objective non_saturating, lower weight_clip or set gradient_penalty for wasserstein, "
        "or lower r1_gamma",
    ),
    Symptom(
        "diverges",
        diverges,
        "pictures get worse, or logits or gradients grow without bound; lower generator_lr, discriminator_lr and beta1,"
        " set r1_gamma, spectral_norm or (wasserstein) gradient_penalty, lower weight_clip, raise batch; go on from "
        "the best snapshot with score_kimg",
    ),
    Symptom(
        "augmentation leaks",
        leaks,
        "so strong a p begins to show in generated pictures; add data, go on from weights of similar data (--adopt), "
        "or lower discriminator_width",
    ),
    Symptom(
        "learns nothing",
        learns_nothing,
        "the denoiser predicts hardly better than zero; raise lr, lower warmup_kimg or widen the network",
    ),
)


def find_alerts(curve: Rows) -> Rows:
    """Return the alerts of a whole curve, in order of kimg, with the value that shows each and what to try.

    A symptom that lasts gives one, when it begins to, and another only after twice WINDOW ticks without it.
    """
    course, alerts = Course(curve), []
    shown = dict.fromkeys((symptom.name for symptom in SYMPTOMS), -2 * WINDOW - 1)  # rows that had each last
    for course.at, row in enumerate(curve):
        for symptom in SYMPTOMS:
            key = symptom.shows(course)
            if key and course.at - shown[symptom.name] > 2 * WINDOW:
                value = round(row[key], 4) if key in row else None
                alerts.append({"kimg": row["kimg"], "alert": symptom.name, key: value, "advice": symptom.advice})
            if key:
                shown[symptom.name] = course.at
    return alerts


def unhealthy_losses(losses: dict[str, float]) -> str:
    """Return which losses are not finite, or an empty text."""
    bad = [f"{name} is {value}" for name, value in losses.items() if value != value or abs(value) == float("inf")]
    return ", ".join(bad)
