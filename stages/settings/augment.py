"""Settings of augmentation in the discriminator, and which transforms the pictures' content rules out."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from stages.settings.base import Count, Positive, Share, Strict

DIFFAUGMENT = ("color", "translation", "cutout")
# The 18 transforms of adaptive discriminator augmentation in six groups, and the named sets of Karras 2020, figure 4.
BLIT = ("xflip", "rotate90", "xint")
GEOM = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
FILTER = ("band0", "band1", "band2", "band3")
ADA_SETS: dict[str, tuple[str, ...]] = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "filter": FILTER,
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": BLIT + GEOM,
    "bgc": BLIT + GEOM + COLOR,
    "bgcf": BLIT + GEOM + COLOR + FILTER,
    "bgcfn": (*BLIT, *GEOM, *COLOR, *FILTER, "noise"),
    "bgcfnc": (*BLIT, *GEOM, *COLOR, *FILTER, "noise", "cutout"),
}
ADA_TRANSFORMS = ADA_SETS["bgcfnc"]

LEAKING = 0.8  # p above which generated pictures begin to look augmented (Karras 2020, section 2.2 and figure 4)

MIRRORS = ("mirror", "xflip")
ROTATIONS = ("rotate90", "rotate")
RECOLOURS = ("hue", "lumaflip")
RULED_OUT: dict[str, tuple[str, ...]] = {  # what would show the discriminator pictures that cannot exist
    "text": MIRRORS + ROTATIONS,
    "flags": MIRRORS + ROTATIONS + RECOLOURS,
    "medical": MIRRORS + ROTATIONS + RECOLOURS,
}


class AugmentSettings(Strict):
    """The policy: none, DiffAugment with each transform at probability p, or ADA, whose p follows the discriminator.

    `interval` steps and `kimg` (pictures in which p may go from 0 to 1) are ADA's pace; p is where it starts, or
    where it stays if `adaptive` is off.
    """

    kind: Literal["none", "diffaugment", "ada"]
    transforms: tuple[str, ...]
    p: Share
    adaptive: bool
    target: Annotated[float, Field(ge=-1, le=1)]
    interval: Count
    kimg: Positive
    mirror: bool

    @field_validator("transforms", mode="before")
    @classmethod
    def _expand_set(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in ADA_SETS:
            raise ValueError(f"no such set; allowed: {', '.join(ADA_SETS)}, or a list of transforms")
        return ADA_SETS[value]

    @model_validator(mode="after")
    def _transforms_fit(self) -> "AugmentSettings":
        if self.kind == "none":
            return self
        allowed = DIFFAUGMENT if self.kind == "diffaugment" else ADA_TRANSFORMS
        unknown = [name for name in self.transforms if name not in allowed]
        if unknown:
            sets = f", or one of the sets {', '.join(ADA_SETS)}" if self.kind == "ada" else ""
            raise ValueError(
                f"kind is `{self.kind}`, but transforms has {', '.join(unknown)}; allowed: {', '.join(allowed)}{sets}"
            )
        if not self.transforms:
            raise ValueError(f"kind is `{self.kind}` but transforms is empty; name some or set kind: none")
        if len(set(self.transforms)) < len(self.transforms):
            raise ValueError("transforms names one twice")
        if self.kind == "ada" and self.adaptive and self.p > LEAKING:
            raise ValueError(
                f"kind is `ada` with p {self.p}: it would start where augmentations leak; set p: 0, or adaptive: false"
            )
        return self

    @property
    def obeyed(self) -> tuple[str, ...]:
        """The transforms that this policy uses, `mirror` included."""
        return (*(self.transforms if self.kind != "none" else ()), *(("mirror",) if self.mirror else ()))


def check_content(augment: AugmentSettings, shown: Iterable[str]) -> None:
    """Refuse transforms that what the pictures show makes wrong.

    Raises:
        ValueError: such as a mirror for text; what to take out is named.
    """
    for content in sorted(shown):
        wrong = [name for name in augment.obeyed if name in RULED_OUT[content]]
        if wrong:
            left = [name for name in augment.transforms if name not in RULED_OUT[content]]
            raise ValueError(
                f"the pictures show {content} (data.content), which augment's {', '.join(wrong)} would falsify; "
                f"set augment.mirror: false and augment.transforms: [{', '.join(left)}]"
            )
