"""The page about the pictures: every text escaped, the same bytes each time, small for any number of pictures."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from stages.catalogue import Picture
from stages.normalize.findings import stratify
from stages.normalize.page import page
from tests.stages.datasets import lay_out, normalize, png

EVIL = '<script>alert("1")</script>'


@pytest.fixture
def images(tmp_path):
    files = {f"{n}{EVIL}.png": png(n) for n in range(20)} | {"copy.png": png(3), f"bad{EVIL}.png": b"<html>"}
    pictures = [
        Picture(key, "pictures.tar", key, f"class {n % 3} {EVIL}", EVIL, licence=EVIL) for n, key in enumerate(files)
    ]
    lay_out(tmp_path, files, pictures)
    return normalize(tmp_path)


class Tags(HTMLParser):
    """Collects the elements and their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_foreign_text_is_escaped_and_nothing_is_loaded(images):
    text = (images / "report.html").read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 20
    tags = Tags()
    tags.feed(text)
    assert not {tag for tag, _ in tags.found} & {"script", "link", "iframe", "object", "base", "form"}
    for tag, attributes in tags.found:
        assert not any(name.startswith("on") for name in attributes)
        assert all(value.startswith("data:image/png;base64,") for name, value in attributes.items() if name == "src"), (
            tag
        )
    assert "href" not in text and "url(" not in text and "default-src 'none'" in text


def test_the_page_tells_what_was_found(images):
    text = (images / "report.html").read_text()
    findings = json.loads((images / "report.json").read_text())
    assert findings["pictures"] == 21
    assert findings["duplicates"]["sets"] == 1
    assert findings["duplicates"]["shown"][0]["files"] == 2
    assert findings["rejects"]["count"] == 1
    assert findings["sizes"]["width"]["bins"] == [{"from": 16, "below": 32, "count": 21}]
    assert len(findings["classes"]) == 3
    assert sum(one["train"] + one["holdout"] for one in findings["classes"]) == 21
    for words in (
        "Are they enough?",
        "62.16",
        "identical pixels",
        "not a picture of a known format",
        "Sizes and colours",
    ):
        assert words in text
    assert all(len(shares) == 32 and abs(sum(shares) - 1) < 1e-4 for shares in findings["colour"]["histogram"].values())


def test_the_page_of_many_pictures_is_small(images):
    """The largest page that findings allow: every list full, pictures of pure noise, names of 200 letters."""
    findings = json.loads((images / "report.json").read_text())
    key = "n" * 200
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    one = findings["classes"][0] | {"name": key, "examples": [key] * 6}
    alike = {"files": 9, "identical": False, "groups": [key] * 6, "both_splits": True}
    alike["examples"] = [{"key": key, "split": "train"}] * 6
    findings["classes"] = [one] * 1000
    findings["duplicates"]["shown"] = [alike] * 16
    findings["rejects"] = {"count": 5000, "first": {f"{key}{n}": "r" * 200 for n in range(200)}}
    text = page(findings, pixels, {key: 0})
    assert 500_000 < len(text.encode()) < 3_000_000
    assert re.search("976 more are in report.json", text)
    assert text == page(findings, pixels, {key: 0})


def test_classes_that_miss_a_split_are_named():
    rows = [
        {"label": label, "split": split, "group": f"{label}{split}", "key": f"{label}{split}{n}"}
        for label, split, n in [(0, "train", 0), (0, "holdout", 0), (1, "train", 0), (1, "train", 1), (2, "holdout", 0)]
    ]
    found = {one["name"]: one for one in stratify(rows, ["both", "seen", "lone"])}
    assert {name: one["warning"] for name, one in found.items()} == {
        "both": "",
        "seen": "no picture in the holdout split",
        "lone": "one picture only",
    }
    assert (found["seen"]["pictures"], found["seen"]["groups"], found["seen"]["share"]) == (2, 1, 0.4)
