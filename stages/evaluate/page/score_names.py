"""What a score's name says: its kind, the feature network, which direction is better, and where it was published."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A kind of score as the pages tell it; `lower` is whether lower values are better, None where neither is."""

    title: str
    lower: bool | None
    meaning: str
    source: str


KINDS = {
    "fd": Kind(
        "Fréchet distance",
        True,
        "How far apart the mean and the covariance of the features of generated and real pictures are; 0 is the same.",
        "Heusel et al. 2017, GANs trained by a two time-scale update rule",
    ),
    "fd_inf": Kind(
        "Fréchet distance at infinite N",
        True,
        "The same distance, extrapolated to endlessly many generated pictures; few pictures alone make it larger.",
        "Chong and Forsyth 2020, Effectively unbiased FID and Inception Score",
    ),
    "kid": Kind(
        "KID",
        True,
        "Kernel distance between the two sets of features; unbiased, so it is near 0, even below, for equal sets.",
        "Bińkowski et al. 2018, Demystifying MMD GANs",
    ),
    "isc": Kind(
        "Inception Score",
        False,
        "How sure a classifier is of each picture while the classes vary; it never looks at real pictures.",
        "Salimans et al. 2016, Improved techniques for training GANs",
    ),
    "precision": Kind(
        "precision",
        False,
        "Share of generated pictures that lie among the real ones: what a viewer calls realistic.",
        "Kynkäänniemi et al. 2019, Improved precision and recall metric",
    ),
    "recall": Kind(
        "recall",
        False,
        "Share of real pictures that lie among the generated ones: how much of the data the model can draw.",
        "Kynkäänniemi et al. 2019, Improved precision and recall metric",
    ),
    "density": Kind(
        "density",
        False,
        "How many neighbourhoods of real pictures hold a generated one, on average; 1 is expected of equal sets.",
        "Naeem et al. 2020, Reliable fidelity and diversity metrics",
    ),
    "coverage": Kind(
        "coverage",
        False,
        "Share of real pictures with a generated one in their neighbourhood; less swayed by outliers than recall.",
        "Naeem et al. 2020, Reliable fidelity and diversity metrics",
    ),
}
DEVIATIONS = {"kid_std": "kid", "kid_se": "kid", "isc_std": "isc"}  # told beside the score that they belong to
OF_INCEPTION = {"fid": "fd", "fid_inf": "fd_inf"}  # only the standard Inception network's distance is named FID
AT_INFINITY = "_inf"
LONGEST_FIRST = sorted([*KINDS, *DEVIATIONS], key=len, reverse=True)


@dataclass(frozen=True)
class ScoreName:
    """A score's published name, taken apart."""

    name: str
    kind: str
    network: str

    @property
    def title(self) -> str:
        """Return the words that stand for the score in a table of one feature network."""
        if self.name in OF_INCEPTION:
            return "FID" if self.kind == "fd" else "FID at infinite N"
        known = KINDS.get(self.kind)
        return known.title if known else self.name

    @property
    def lower(self) -> bool | None:
        """Return whether lower values are better, None where that is not known."""
        return KINDS[self.kind].lower if self.kind in KINDS else None


def parse(name: str) -> ScoreName:
    """Take a score's name apart; a name of an unknown kind keeps it as its kind and has no network."""
    if name in OF_INCEPTION:
        return ScoreName(name, OF_INCEPTION[name], "inception")
    if name.startswith("fd_") and name.endswith(AT_INFINITY):
        return ScoreName(name, "fd_inf", name.removeprefix("fd_").removesuffix(AT_INFINITY))
    for kind in LONGEST_FIRST:
        if name.startswith(f"{kind}_"):
            return ScoreName(name, kind, name[len(kind) + 1 :])
    return ScoreName(name, name, "")


def by_network(names: Any) -> dict[str, list[ScoreName]]:
    """Group names by feature network in their own order, each group in the order of the kinds; deviations are left out.

    Networks named in no score are not there; names of an unknown kind come last, under the empty network.
    """
    order = {kind: place for place, kind in enumerate(KINDS)}
    groups: dict[str, list[ScoreName]] = {}
    for found in map(parse, names):
        if found.kind not in DEVIATIONS:
            groups.setdefault(found.network, []).append(found)
    for group in groups.values():
        group.sort(key=lambda one: order.get(one.kind, len(order)))
    return dict(sorted(groups.items(), key=lambda item: item[0] == ""))
