"""Which Inception weights a score may use: the setting, the lock file and the bytes on disk must agree."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.errors import InputError
from stages.packages import cache_folder
from stages.storage import read_json, sha256_file

STANDARD_FILE = "weights-inception-2015-12-05-6726825d.pth"
STANDARD_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
STANDARD_BYTES = 95_628_359
DOWNLOAD = "download"  # the setting that stands for the file that pipelines.refresh has put into the user's cache
REFRESH = "run `python -m pipelines.refresh`"
ABSENT = (
    "FID was not computed: the Inception weights are absent. Set evaluate.inception in params.yaml to the path of "
    f"{STANDARD_FILE} ({STANDARD_BYTES:,} bytes), or to `{DOWNLOAD}`, and {REFRESH}. "
    "Distances in other features, such as fd_efficientnet_lite0, are not FID."
)


@dataclass(frozen=True)
class InceptionWeights:
    """A file of Inception weights whose sha256 is the locked one."""

    path: Path
    sha256: str

    @property
    def standard(self) -> bool:
        """Whether these are the weights of published FIDs; only with them a distance may be called `fid`."""
        return self.sha256 == STANDARD_SHA256


def find_inception(setting: str | None, lock_file: Path) -> InceptionWeights | None:
    """Return the weights that `evaluate.inception` names, or None where it is null.

    Raises:
        InputError: the file is absent, or its sha256 is not the one in the lock file (both are named).
    """
    locked = _locked_sha256(lock_file)
    if setting is None:
        return None
    path = cache_folder() / STANDARD_FILE if setting == DOWNLOAD else Path(setting).expanduser()
    if not path.is_file():
        raise InputError(f"evaluate.inception is {setting}, but there is no file {path}; {_remedy(setting)}")
    found = sha256_file(path)
    if found != locked:
        raise InputError(
            f"evaluate.inception is {setting} with sha256 {found}, but {lock_file} expects {locked or 'none (null)'}; "
            f"{REFRESH} to take these weights into the lock"
        )
    return InceptionWeights(path, found)


def missing_reason(setting: str | None, lock_file: Path) -> str | None:
    """Return why there is no FID, where evaluate.inception is null; None where weights are set."""
    if setting is not None:
        return None
    locked = _locked_sha256(lock_file)
    if locked is None:
        return ABSENT
    return f"FID was not computed: evaluate.inception is null, though {lock_file.name} names weights {locked}."


def _remedy(setting: str) -> str:
    return REFRESH if setting == DOWNLOAD else f"give the path of {STANDARD_FILE}, `{DOWNLOAD}` or null"


def _locked_sha256(lock_file: Path) -> str | None:
    lock: Any = read_json(lock_file, REFRESH)
    try:
        entry = lock["inception"]
        return None if entry is None else str(entry["sha256"])
    except (KeyError, TypeError) as error:
        raise InputError(f"{lock_file} has no `inception` entry with a sha256 or null; {REFRESH}") from error
