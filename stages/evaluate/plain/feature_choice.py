"""Which feature network a comparison of plain folders uses, and where its weights come from; imports no torch."""

import os
from dataclasses import dataclass
from pathlib import Path

from stages.errors import InputError
from stages.evaluate.plain.folder_pictures import shown
from stages.metrics.inception_weights import STANDARD_BYTES, STANDARD_FILE, STANDARD_SHA256
from stages.packages import cache_folder
from stages.storage import sha256_file

INCEPTION, OFFLINE = "inception", "efficientnet_lite0"
PYTORCH_FID_FILE = "pt_inception-2015-12-05-6726825d.pth"  # the same bytes by pytorch-fid's name
HOW = (
    f"give {STANDARD_FILE} ({STANDARD_BYTES:,} bytes, sha256 {STANDARD_SHA256[:12]}...) by --weights FILE, "
    "or put it into {folder}"
)


@dataclass(frozen=True)
class Choice:
    """A feature network's name, its weights (None: those that come with it), and what a reader must know of it."""

    features: str
    weights: Path | None
    warnings: tuple[str, ...] = ()


def choose(features: str | None, weights: Path | None) -> Choice:
    """Return the network that was asked for, or Inception where its weights are found, otherwise one that is not FID.

    Raises:
        InputError: its weights are absent, or it takes none.
    """
    if weights is not None and not weights.is_file():
        raise InputError(f"--weights is {shown(weights)}, but there is no such file; give the path of a weights file")
    if features == OFFLINE and weights is not None:
        raise InputError(f"--weights is {shown(weights)}, but {OFFLINE} comes with its own; leave --weights out")
    if features == OFFLINE:
        return Choice(OFFLINE, None)
    if features in (None, INCEPTION):
        return _choose_inception(features, weights)
    if weights is None:
        raise InputError(f"--features {features} needs --weights FILE: its weights are in no package")
    return Choice(features, weights)


def find_standard() -> Path | None:
    """Return the standard Inception weights, from this project's cache or from where the field's tools keep them."""
    known = [cache_folder() / STANDARD_FILE, *(_hub() / name for name in (STANDARD_FILE, PYTORCH_FID_FILE))]
    for path in known:
        if path.is_file() and path.stat().st_size == STANDARD_BYTES and sha256_file(path) == STANDARD_SHA256:
            return path
    return None


def _choose_inception(features: str | None, weights: Path | None) -> Choice:
    path = weights or find_standard()
    if path is not None:
        return Choice(INCEPTION, path)
    how = HOW.format(folder=cache_folder())
    if features == INCEPTION:
        raise InputError(f"--features inception: its standard weights were not found; {how}")
    loud = f"THIS IS NOT FID: Inception's weights were not found, so {OFFLINE} stands in; for FID {how}"
    return Choice(OFFLINE, None, (loud,))


def _hub() -> Path:
    """Return where torch keeps downloads, without importing it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser() / "hub" / "checkpoints"
