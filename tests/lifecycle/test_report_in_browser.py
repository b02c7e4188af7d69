"""The evaluation pages in a headless Chromium: they render, pictures and videos decode, and they ask for nothing."""

import base64
import html
import http.server
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.evaluate.page.comparison_page import comparison_page
from stages.evaluate.page.model_page import model_page
from stages.evaluate.video import encode
from tests.unit.test_evaluate_page import HOSTILE, content, noise, scores

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 120
SIZE = "1200,3000"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000")
# A page of its own measures the report in a frame without the right to run scripts, from outside.
PROBE = """<!doctype html><meta charset="utf-8"><title>waiting</title><iframe id="f" width="1200" height="800"
 sandbox="allow-same-origin" srcdoc="{page}"></iframe><pre id="out"></pre><script>
document.getElementById("f").addEventListener("load", async () => {{
  const d = document.getElementById("f").contentDocument, images = [...d.images];
  const videos = [...d.querySelectorAll("video")];
  await Promise.all(videos.map(v => v.readyState > 1 || v.error || new Promise(done => {{
    v.addEventListener("loadeddata", done); v.addEventListener("error", done);
  }})));
  const played = videos.filter(v => v.videoWidth > 0 && !v.error && v.duration > 0.5 && v.paused).length;
  const drawn = images.filter(i => i.complete && i.naturalWidth > 0).length;
  const charts = [...d.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().height > 50).length;
  const wide = d.documentElement.scrollWidth <= d.documentElement.clientWidth;
  document.getElementById("out").textContent = [d.title, images.length, drawn, charts, wide, played].join("|");
}});</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """The path of a Chromium; without one the tests are skipped, on a CI machine they fail."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"none of {', '.join(BROWSERS)} is on PATH; install chromium to see the reports rendered"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="module", params=["model", "comparison"])
def page(request: pytest.FixtureRequest) -> str:
    """A page of made-up reports, with foreign text in it."""
    if request.param == "model":
        styles: dict[str, Any] = {"mixing": noise(6, 3, 8, 8, 3), "walk": encode([noise(24, 32, 32, 3)], 32, 2)}
        return model_page(content(report=scores() | {"warnings": [HOSTILE]}, **styles))
    return comparison_page([content(), content("other", 40.0), content(HOSTILE)])


def browse(browser: str, profile: Path, *arguments: str) -> str:
    """Run the browser once in a profile of its own and return what it printed."""
    command = [browser, *FLAGS, f"--user-data-dir={profile}", f"--window-size={SIZE}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=profile.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_page_renders_with_all_its_pictures(browser: str, page: str, tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.format(page=html.escape(page)))
    told = browse(browser, tmp_path / "profile", "--dump-dom", probe.as_uri())
    title, images, drawn, charts, fits, played = re.findall(r'<pre id="out">(.*?)</pre>', told)[0].split("|")
    assert html.unescape(title) in page
    assert int(images) == page.count("<img ") > 0
    assert drawn == images
    assert int(charts) == page.count("<svg ") > 0
    assert int(played) == page.count("<video ") == ("latent walk" in page)
    assert fits == "true"  # nothing but tables and charts scrolls sideways


def test_page_has_its_headings_in_the_dom_and_runs_no_script(browser: str, page: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    planted = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    file.write_text(page.replace("</body>", f"{planted}</body>"))
    told = browse(browser, tmp_path / "profile", "--dump-dom", file.as_uri())
    assert "<title>ran</title>" not in told
    assert re.findall(r"<h2>(.*?)</h2>", told) == re.findall(r"<h2>(.*?)</h2>", page)


@pytest.mark.parametrize("dark", [False, True])
def test_screenshot_is_not_blank_and_follows_the_colour_scheme(
    browser: str, page: str, dark: bool, tmp_path: Path
) -> None:
    file, shot = tmp_path / "page.html", tmp_path / "shot.png"
    file.write_text(page)
    scheme = ("--blink-settings=preferredColorScheme=0",) if dark else ()
    browse(browser, tmp_path / "profile", *scheme, f"--screenshot={shot}", file.as_uri())
    pixels = np.asarray(Image.open(shot).convert("L"), np.float32)
    assert pixels.shape == (3000, 1200)
    paper = float(np.median(pixels))
    assert paper < 60 if dark else paper > 240
    written = np.abs(pixels - paper) > 60
    assert written.any(axis=1).mean() > 0.3  # of the rows hold text, lines or pictures
    assert written.mean() > 0.02


class _Counted(http.server.SimpleHTTPRequestHandler):
    paths: list[str] = []

    def do_GET(self) -> None:
        self.paths.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[http.server.ThreadingHTTPServer]:
    """A local server that notes which paths are asked for."""
    _Counted.paths = []
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: _Counted(*arguments, directory=str(folder))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_page_asks_its_server_for_nothing_but_itself(
    browser: str, page: str, server: http.server.ThreadingHTTPServer, tmp_path: Path
) -> None:
    folder = tmp_path / "served"
    pixel = base64.b64encode(b"x").decode()
    planted = (
        f'<img src="/planted.png?{pixel}"><link rel="stylesheet" href="/planted.css"><iframe src="/p.html"></iframe>'
    )
    (folder / "page.html").write_text(page.replace("</body>", f"{planted}</body>"))
    browse(browser, tmp_path / "profile", "--dump-dom", f"http://127.0.0.1:{server.server_port}/page.html")
    assert set(_Counted.paths) <= {"/page.html", "/favicon.ico"}  # the policy holds back even what was planted
    assert "/page.html" in _Counted.paths
