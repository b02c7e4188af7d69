"""Which version a release gets."""

import re
from pathlib import Path

import pytest

from pipelines.release.version import Version, choose, next_free, parse, released
from stages.errors import InputError

CHANGED = ["input label is new"]


@pytest.mark.parametrize(
    ("wanted", "last", "changes", "version"),
    [
        (None, None, [], "1.0.0"),
        (None, "1.0.0", [], "1.1.0"),
        (None, "1.9.7", [], "1.10.0"),
        (None, "1.2.3", CHANGED, "2.0.0"),
        ("0.1.0", None, [], "0.1.0"),
        ("1.0.1", "1.0.0", [], "1.0.1"),
        ("2.0.0", "1.10.0", [], "2.0.0"),
        ("3.1.0", "1.10.0", CHANGED, "3.1.0"),
    ],
)
def test_next_version(wanted, last, changes, version):
    assert str(choose(wanted, parse(last) if last else None, changes)) == version


@pytest.mark.parametrize(
    ("wanted", "last", "changes", "message"),
    [
        ("1.0.0", "1.0.0", [], "1.0.0 exists, and a release is never overwritten; the next free one is 1.1.0"),
        ("1.2.0", "1.10.0", [], "1.2.0 is below 1.10.0, which exists; the next free one is 1.11.0"),
        ("1.1.0", "1.0.0", CHANGED, "keeps MAJOR of 1.0.0, but input label is new: .* expected 2.0.0"),
        *[(text, "1.0.0", [], "expected MAJOR.MINOR.PATCH such as 1.1.0") for text in ("1", "1.2", "v1.2.3", "1.02.3")],
        *[
            (text, None, [], "expected MAJOR.MINOR.PATCH such as 1.0.0")
            for text in ("", "1.0.0-rc1", "../1.0.0", "1.0.0\n", "\N{FULLWIDTH DIGIT ONE}.0.0")
        ],
    ],
)
def test_impossible_version_is_refused(wanted, last, changes, message):
    with pytest.raises(InputError) as refused:
        choose(wanted, parse(last) if last else None, changes)
    assert re.search(message, str(refused.value))
    assert "\n" not in str(refused.value).replace(wanted, "")


def test_released_versions_are_in_order_of_number(tmp_path: Path):
    for name in ("1.10.0", "1.9.0", ".2.0.0.partial", "old", "2"):
        (tmp_path / name).mkdir()
    (tmp_path / "3.0.0").write_text("a file is no release")
    assert released(tmp_path) == [Version(1, 9, 0), Version(1, 10, 0)]
    assert released(tmp_path / "none") == []
    assert next_free(None, []) == Version(1, 0, 0)
