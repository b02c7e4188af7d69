"""Under which licences the pictures stand that a model learnt from, as far as records tell."""

from typing import Any

ATTRIBUTION = "ATTRIBUTION.md"
NAMES = {  # SPDX identifier -> name, and where its text is
    "CC-BY-4.0": "Creative Commons Attribution 4.0 International, https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-4.0": "Creative Commons Attribution-ShareAlike 4.0, https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0-1.0": "Creative Commons Zero 1.0, https://creativecommons.org/publicdomain/zero/1.0/",
    "MIT": "The MIT License, https://opensource.org/license/mit",
}
HEAD = """# Data and licences

This model was trained on the `train` pictures below and scored against the `holdout` ones. The release holds none of
them. Licences are those that the records of the data name; `unknown` means that nobody has written one down.
"""
FOOT = """
The records name no licence of the weights and of what they draw: ask whoever made this release, and look at the
licences above, some of which ask for the names of their authors.
"""


def attribution(data: dict[str, Any]) -> str:
    """Return the text of ATTRIBUTION.md for the record's part `data`."""
    rows = ["| from | licence | train | holdout | sha256 |", "|---|---|---|---|---|"]
    for source in data["sources"]:
        name = f"{source['name']} {source['version']}" if "name" in source else source["file"]
        counts = " | ".join(f"{source.get(split, 0):,}" for split in ("train", "holdout"))
        rows.append(f"| {name} | {source['licence']} | {counts} | `{source['sha256'][:16]}` |")
    licences = [f"- {licence}: {NAMES.get(licence, 'see its text')}" for licence in data["licences"]]
    return "\n".join([HEAD, *rows, "", *licences, FOOT])
