"""What a number of training pictures lets one expect of a GAN, beside what was published for as few."""

from dataclasses import dataclass

from stages.settings import AugmentSettings

FEW = 10_000  # training pictures; below it discriminators learn them by heart (Karras 2020, Zhao 2020)
TOO_FEW = 1_000
LARGE = 128  # pixels a side
ADA_SOURCE = "Karras et al. 2020, Training Generative Adversarial Networks with Limited Data"
DIFFAUGMENT_SOURCE = "Zhao et al. 2020, Differentiable Augmentation, DiffAugment-stylegan2/README.md of its repository"


@dataclass(frozen=True)
class Published:
    """FID on FFHQ at 256 pixels, trained on so many of its pictures; nothing where none was found in a source."""

    pictures: int
    stylegan2: float | None
    diffaugment: float | None
    ada: float | None


PUBLISHED = (
    Published(1_000, 62.16, 25.66, 21.29),
    Published(5_000, 26.60, 10.45, None),
    Published(10_000, 14.75, 7.86, None),
    Published(30_000, 6.16, 5.05, None),
    Published(70_000, 3.81, 4.24, 4.30),
)


def expectations(count: int, resolution: int, augment: AugmentSettings | None = None) -> list[str]:
    """Say what to expect of so many training pictures, and what helps; nothing where they are enough.

    With a policy, only what it lacks is proposed.
    """
    if count >= FEW:
        return []
    lines = [f"{count} training pictures are under {FEW}: a discriminator learns them by heart; {_published_at(count)}"]
    if augment is None or augment.kind == "none":
        lines.append("set augment.kind: ada (its p follows the discriminator) or diffaugment")
    elif (augment.kind == "diffaugment" and augment.p == 0) or (
        augment.kind == "ada" and not augment.adaptive and augment.p == 0
    ):
        lines.append(f"augment.p is 0, so augment.kind: {augment.kind} changes nothing; raise it")
    if count < TOO_FEW:
        lines.append(f"fewer than {TOO_FEW}: go on from weights trained on similar pictures, or collect more")
    else:
        lines.append("going on from weights trained on similar pictures (transfer) takes fewer of them")
    if resolution >= LARGE:
        lines.append(f"a smaller normalize.resolution than {resolution} asks less of them; {resolution // 2} first")
    return lines


def _published_at(count: int) -> str:
    """Quote the published row that has the nearest number of pictures from above."""
    row = next(row for row in PUBLISHED if row.pictures >= min(count, PUBLISHED[-1].pictures))
    scores = {"StyleGAN2": row.stylegan2, "with DiffAugment": row.diffaugment, "with ADA": row.ada}
    told = ", ".join(f"{name} {score}" for name, score in scores.items() if score is not None)
    return f"published FID on FFHQ-256 with {row.pictures}: {told}"
