"""The default source: emoji of several styles from packages, without the network but for one slow test."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from stages.catalogue import read_catalogue
from stages.dataset import ImageDataset
from stages.download.emoji import FOLDER_OF_STYLE, PACKAGE_OF_STYLE, download_emoji, plain_code, slugs, subject
from stages.download.run import pinned_content, run
from stages.errors import InputError
from stages.packages import PACKAGES, Package
from stages.settings import EmojiSettings, load_settings
from stages.storage import sha256_bytes, write_json
from tests.conftest import write_locks

STYLES = list(FOLDER_OF_STYLE)
SUBGROUPS = ["person-role", "face-smiling"]


def entry(hexcode: str, annotation: str, subgroup: str, base: str = "", group: str = "people-body") -> dict:
    """An emoji as openmoji.json describes it; `base` is the hexcode without a skin tone."""
    tone = {"skintone": "4" if base else "", "skintone_base_hexcode": base}
    return {"hexcode": hexcode, "annotation": annotation, "group": group, "subgroups": subgroup} | tone


ARTIST = "1F468-200D-1F3A8"
TONED = "1F468-1F3FE-200D-1F3A8"
EMOJI = [
    entry("1F600", "grinning face", "face-smiling", group="smileys-emotion"),
    entry("263A-FE0F", "smiling face", "face-smiling", group="smileys-emotion"),
    entry(ARTIST, "man artist", "person-role"),
    entry(TONED, "man artist: medium-dark skin tone", "person-role", base=ARTIST),
    entry("1F431", "cat face", "animal-mammal", group="animals-nature"),
    entry("E000", "a logo", "brand", group="extras-openmoji"),
]
NAMES = {  # the drawings that each style's package has: by code points, or by words
    "openmoji": ["1F600", "263A", ARTIST, TONED, "1F431"],
    "twemoji": ["1f600", "263a", ARTIST.lower(), TONED.lower()],
    "fluent3d": ["1f600", "263a-fe0f", ARTIST.lower()],
    "fluentflat": ["grinning-face", "smiling-face", "man-artist-default", "man-artist-medium-dark"],
    "fluentcolor": ["grinning-face", "man-artist-default"],
}


def drawing(style: str, name: str) -> bytes:
    """A filled square on nothing: a WebP for the style that ships rasters, else an SVG."""
    colour = "#" + sha256_bytes(f"{style}{name}".encode())[:6]
    if style != "fluent3d":
        head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 36 36">'
        return f'{head}<rect x="4" y="4" width="28" height="28" fill="{colour}"/></svg>'.encode()
    picture = Image.new("RGBA", (48, 48))
    picture.paste(colour, (4, 4, 44, 44))
    stream = io.BytesIO()
    picture.save(stream, "WEBP", lossless=True)
    return stream.getvalue()


def members_of(package: str) -> dict[str, bytes]:
    members = {"package/README.md": b"no picture"}
    if package == "openmoji":
        members["package/data/openmoji.json"] = json.dumps(EMOJI).encode()
    for style, prefix in FOLDER_OF_STYLE.items():
        if PACKAGE_OF_STYLE[style] == package:
            kind = "webp" if style == "fluent3d" else "svg"
            members |= {f"{prefix}{name}.{kind}": drawing(style, name) for name in NAMES[style]}
    return members


def tgz(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch) -> None:
    """Tiny packages in the cache in place of the real ones."""
    monkeypatch.setenv("IMAGE_FOUNDRY_CACHE", str(tmp_path / "cache"))
    for name in set(PACKAGE_OF_STYLE.values()):
        data, real = tgz(members_of(name)), PACKAGES[name]
        tiny = Package("npm", name, "0", real.file, len(data), sha256_bytes(data), real.licence)
        monkeypatch.setitem(PACKAGES, name, tiny)
        path = tmp_path / "cache" / tiny.sha256[:16] / tiny.file
        path.parent.mkdir(parents=True)
        path.write_bytes(data)


def choose(**changes) -> EmojiSettings:
    return EmojiSettings(**({"styles": STYLES, "subgroups": SUBGROUPS, "skin_tones": True} | changes))


def keys(pictures) -> set[str]:
    return {picture.key for picture in pictures}


def test_every_style_gives_the_emoji_that_it_draws(packages, tmp_path):
    pictures = {picture.key: picture for picture in download_emoji(choose(), tmp_path)}
    artist, toned = ARTIST.lower(), TONED.lower()
    common = {f"{style}/1f600" for style in STYLES} | {f"{style}/{artist}" for style in STYLES}
    smiling = {f"{style}/263a" for style in ("openmoji", "twemoji", "fluent3d", "fluentflat")}
    tones = {f"{style}/{toned}" for style in ("openmoji", "twemoji", "fluentflat")}
    assert set(pictures) == common | smiling | tones
    one = pictures[f"fluentflat/{toned}"]
    assert one.member == "package/icons/flat/man-artist-medium-dark.svg"
    assert one.caption == "man artist: medium-dark skin tone emoji, Fluent flat style"
    assert (one.class_name, one.group, one.pair_id, one.licence) == ("person-role", "1f9d1-200d-1f3a8", toned, "MIT")
    assert pictures[f"fluentcolor/{artist}"].member == "package/icons/modern/man-artist-default.svg"
    assert pictures["fluent3d/263a"].member == "package/assets/263a-fe0f.webp"


def test_styles_subgroups_and_skin_tones_are_chosen(packages, tmp_path):
    chosen = download_emoji(choose(styles=["twemoji"], subgroups=["person-role"], skin_tones=False), tmp_path)
    assert keys(chosen) == {f"twemoji/{ARTIST.lower()}"}
    assert {path.name for path in tmp_path.glob("*.tgz")} == {
        PACKAGES[name].file for name in ("openmoji", "@discordapp/twemoji")
    }
    with pytest.raises(InputError, match=r"has brand, dog-face; allowed: animal-mammal, face-smiling, person-role"):
        download_emoji(choose(subgroups=["face-smiling", "dog-face", "brand"]), tmp_path)


def test_the_default_source_becomes_a_data_set(packages, empty_workspace, run_stage, edit_params):
    edit_params(**{"data.source": "emoji", "data.emoji": choose().model_dump(), "normalize.holdout": 0.7})
    lock, data = Path("data/source.lock.json"), load_settings(Path("params.yaml")).data
    write_json(lock, pinned_content(data))
    run(data, lock, Path("data/raw"))
    origin = json.loads(Path("data/raw/origin.json").read_text())
    assert origin["licences"] == ["CC-BY-4.0", "CC-BY-SA-4.0", "MIT"]
    assert {one["sha256"] for one in origin["archives"]} == {PACKAGES[n].sha256 for n in PACKAGE_OF_STYLE.values()}
    for name in ("align", "normalize"):
        done = run_stage(name)
        assert done.returncode == 0, done.stdout + done.stderr
    dataset = ImageDataset(Path("data/images"))
    assert {row["key"] for row in dataset.rows} == keys(read_catalogue(Path("data/raw")))
    assert dataset.description["class_names"] == sorted(SUBGROUPS)
    for position, row in enumerate(dataset.rows):
        style, name = row["key"].split("/")[0], Path(row["source"].split("!")[1]).stem
        colour = bytes.fromhex(sha256_bytes(f"{style}{name}".encode())[:6])
        assert dataset.pixels[position, 8, 8].tolist() == list(colour)


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        ("grinning face", ["grinning-face", "grinning-face-default"]),
        ("man artist: medium-dark skin tone", ["man-artist-medium-dark"]),
        ("person: blond hair", ["person-blond-hair", "person-blond-hair-default"]),
        ("woman: light skin tone, blond hair", ["woman-blond-hair-light"]),
        ("woman\u2019s hat", ["womans-hat", "womans-hat-default"]),
        ("keycap: #", ["keycap", "keycap-default"]),
    ],
)
def test_names_by_words(annotation, names):
    assert slugs(annotation) == names


@pytest.mark.parametrize(
    ("hexcode", "code"), [("0023-FE0F-20E3", "0023-20e3"), ("1F600", "1f600"), (TONED, TONED.lower())]
)
def test_names_by_code_points(hexcode, code):
    assert plain_code(hexcode) == code


@pytest.mark.parametrize(
    ("code", "group"),
    [
        ("1f469-200d-1f680", "1f9d1-200d-1f680"),
        ("1f471-200d-2640", "1f471"),
        ("1f471", "1f471"),
        ("1f936", "1f9d1-200d-1f384"),
        ("1f636-200d-1f32b", "1f636-200d-1f32b"),
        ("2640", "2640"),
    ],
)
def test_woman_man_and_person_of_one_emoji_share_a_group(code, group):
    assert subject(code) == group


@pytest.fixture
def with_npm(empty_workspace: Path, edit_params, run_stage):
    """Run `download` of openmoji's cats with an empty cache and a shell script as npm."""

    def download(script: str):
        edit_params(**{"data.source": "emoji", "data.emoji.styles": ["openmoji"]})
        edit_params(**{"data.emoji.subgroups": ["cat-face"]})
        write_locks(empty_workspace)
        program = empty_workspace / "bin" / "npm"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        return run_stage("download", PATH=path, IMAGE_FOUNDRY_CACHE=str(empty_workspace / "cache"))

    return download


@pytest.mark.parametrize(
    ("script", "retryable", "words"),
    [
        (
            'for last; do :; done; echo malice > "$last/openmoji-17.0.0.tgz"',
            False,
            ("openmoji-17.0.0.tgz has sha256", "expected 55ee7d13", "damaged or not the pinned version"),
        ),
        (
            "echo 'npm error network request failed,' >&2; echo 'npm error reason: ECONNRESET' >&2; exit 1",
            True,
            ("openmoji could not be fetched", "is the network there?", "reason: ECONNRESET"),
        ),
        ("exit 0", True, ("left 0 files instead of one",)),
    ],
)
def test_a_package_that_does_not_arrive_is_one_line(with_npm, script, retryable, words):
    done = with_npm(script)
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (2, 1), done.stdout + done.stderr
    for word in words:
        assert word in lines[0]
    assert "fetching openmoji 17.0.0 (4.3 MB)" in done.stdout
    assert not Path("data/raw").exists()
    assert not [path for path in Path("cache").rglob("*") if path.is_file()]
    note = json.loads(Path(".work/last/download.json").read_text())
    assert (note["code"], note["retryable"]) == (2, retryable)


@pytest.mark.slow
def test_the_real_package_arrives(empty_workspace, run_stage, edit_params):
    """4.3 MB from the registry, whatever the user's cache holds."""
    edit_params(**{"data.source": "emoji", "data.emoji.styles": ["openmoji"], "data.emoji.subgroups": ["cat-face"]})
    write_locks(empty_workspace)
    done = run_stage("download", IMAGE_FOUNDRY_CACHE=str(empty_workspace / "cache"))
    assert done.returncode == 0, done.stderr
    assert "fetched openmoji in" in done.stdout
    pictures = read_catalogue(Path("data/raw"))
    assert len(pictures) == 9
    assert all("cat" in picture.caption and picture.class_name == "cat-face" for picture in pictures)
    assert run_stage("align").returncode == 0
