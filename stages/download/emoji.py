"""The `emoji` source: emoji in several drawing styles; names, groups and skin tones from openmoji's catalogue."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.archives import member_names, read_members
from stages.catalogue import Picture
from stages.errors import InputError
from stages.packages import PACKAGES, fetch
from stages.settings import EmojiSettings
from stages.storage import check_free

METADATA_PACKAGE = "openmoji"
METADATA_MEMBER = "package/data/openmoji.json"
PACKAGE_OF_STYLE = {
    "openmoji": "openmoji",
    "twemoji": "@discordapp/twemoji",
    "fluent3d": "@lobehub/fluent-emoji-3d",
    "fluentflat": "fluentui-emoji",
    "fluentcolor": "fluentui-emoji",
}
FOLDER_OF_STYLE = {
    "openmoji": "package/color/svg/",
    "twemoji": "package/dist/svg/",
    "fluent3d": "package/assets/",
    "fluentflat": "package/icons/flat/",
    "fluentcolor": "package/icons/modern/",
}
GENDER_SIGNS = ("2640", "2642")  # woman, man
NEUTRAL = {  # the drawing that does not say woman or man, of those that Unicode gives several code points
    "1f468": "1f9d1",  # man, woman -> person
    "1f469": "1f9d1",
    "1f466": "1f9d2",  # boy, girl -> child
    "1f467": "1f9d2",
    "1f474": "1f9d3",  # old man, old woman -> older person
    "1f475": "1f9d3",
    "1f934": "1fac5",  # prince, princess -> person with crown
    "1f478": "1fac5",
    "1f930": "1fac4",  # pregnant woman, pregnant man -> pregnant person
    "1fac3": "1fac4",
    "1f385": "1f9d1-200d-1f384",  # Santa Claus, Mrs. Claus -> Mx Claus
    "1f936": "1f9d1-200d-1f384",
}
STYLE_WORDS = {
    "openmoji": "OpenMoji outline",
    "twemoji": "Twemoji flat",
    "fluent3d": "Fluent 3D",
    "fluentflat": "Fluent flat",
    "fluentcolor": "Fluent colour",
}


def packages_for(styles: list[str]) -> list[str]:
    """Return the data packages that styles need; openmoji's always, for names and groups."""
    return sorted({METADATA_PACKAGE, *(PACKAGE_OF_STYLE[style] for style in styles)})


def download_emoji(settings: EmojiSettings, folder: Path) -> list[Picture]:
    """Put the packages' archives into a folder as they came and list the pictures of the chosen styles and subgroups.

    Raises:
        InputError: a subgroup that openmoji's catalogue does not have.
        ResourceError: the disk is too small.
    """
    archives = {}
    names = packages_for(list(settings.styles))
    check_free(folder, sum(PACKAGES[name].bytes for name in names), "data.emoji")
    for name in names:
        archives[name] = folder / PACKAGES[name].file
        shutil.copyfile(fetch(name), archives[name])
    emoji = _chosen(settings, _read_metadata(archives[METADATA_PACKAGE]))
    pictures = []
    for style in settings.styles:
        pictures += _pictures_of_style(style, emoji, archives[PACKAGE_OF_STYLE[style]])
    return pictures


def _read_metadata(archive: Path) -> list[dict[str, Any]]:
    _, data = next(read_members(archive, {METADATA_MEMBER}))
    return list(json.loads(data))


def _chosen(settings: EmojiSettings, metadata: list[dict[str, Any]]) -> list[dict[str, Any]]:
    drawn = [e for e in metadata if not e["group"].startswith(("extras-", "component"))]
    known = {entry["subgroups"] for entry in drawn}
    unknown = sorted(set(settings.subgroups) - known)
    if unknown:
        raise InputError(f"data.emoji.subgroups has {', '.join(unknown)}; allowed: {', '.join(sorted(known))}")
    chosen = [entry for entry in drawn if entry["subgroups"] in settings.subgroups]
    return [entry for entry in chosen if settings.skin_tones or not entry["skintone"]]


def _pictures_of_style(style: str, emoji: list[dict[str, Any]], archive: Path) -> list[Picture]:
    """List the emoji that a style draws; styles lack some of the newest ones."""
    prefix = FOLDER_OF_STYLE[style]
    by_slug = PACKAGE_OF_STYLE[style] == "fluentui-emoji"
    name_of: Callable[[str], str] = str if by_slug else plain_code
    members = {name_of(Path(m).stem): m for m in member_names(archive) if m.startswith(prefix)}
    pictures = []
    for entry in emoji:
        names = slugs(entry["annotation"]) if by_slug else [plain_code(entry["hexcode"])]
        member = next((members[name] for name in names if name in members), None)
        if member:
            pictures.append(_picture(style, entry, archive.name, member))
    return pictures


def _picture(style: str, entry: dict[str, Any], archive: str, member: str) -> Picture:
    code = plain_code(entry["hexcode"])
    return Picture(
        key=f"{style}/{code}",
        archive=archive,
        member=member,
        class_name=entry["subgroups"],
        caption=f"{entry['annotation']} emoji, {STYLE_WORDS[style]} style",
        group=subject(plain_code(entry["skintone_base_hexcode"] or entry["hexcode"])),
        pair_id=code,
        licence=PACKAGES[PACKAGE_OF_STYLE[style]].licence,
    )


def plain_code(hexcode: str) -> str:
    """Return code points in lower case without variation selectors, by which styles agree on an emoji's name."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def subject(code: str) -> str:
    """Return the code points under which the woman, the man and the person of one emoji are one subject.

    They are near-duplicates: drawn alike but for the hair, so that a split between them would leak.
    """
    parts = code.split("-")
    if parts[-1] in GENDER_SIGNS and len(parts) > 1:
        parts = parts[:-2]  # with the joiner before the sign
    return "-".join([NEUTRAL.get(parts[0], parts[0]), *parts[1:]])


def slugs(annotation: str) -> list[str]:
    """Return the names under which fluentui-emoji may keep an emoji: words with dashes, the skin tone last.

    An emoji that has skin tones is kept as `NAME-default` where no tone is named.
    """
    subject, _, qualifiers = annotation.partition(":")
    parts = [part.strip() for part in qualifiers.split(",") if part.strip()]
    tones = [part.removesuffix(" skin tone") for part in parts if part.endswith(" skin tone")]
    others = [part for part in parts if not part.endswith(" skin tone")]
    words = " ".join([subject, *others, *tones]).lower().replace("\u2019", "")
    slug = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    return [slug] if tones else [slug, f"{slug}-default"]
