"""What normalize found, as one page that needs no network: data/images/report.html."""

import base64
import io
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from stages.normalize.charts import bars, curves
from stages.normalize.findings import CLASSES_SHOWN, Findings
from stages.sufficiency import ADA_SOURCE, DIFFAUGMENT_SOURCE, FEW

SHOWN_SIDE = 48  # pixels of a picture on the page, at most
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """
:root { color-scheme: light dark; --line: #8885; --bar: #3b7dd8; --warn: #b45309; }
@media (prefers-color-scheme: dark) { :root { --bar: #6ea8fe; --warn: #fbbf24; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .5rem; }
dt { font-size: .8rem; opacity: .75; } dd { margin: 0; font-size: 1.2rem; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } td.n { white-space: nowrap; }
td.name { min-width: 6rem; } tr.first td { border: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; }
svg { width: 100%; } svg text { font-size: 10px; text-anchor: middle; fill: currentColor; } .bar { fill: var(--bar); }
figure { display: inline-block; margin: 0 .4rem .4rem 0; vertical-align: top; width: 6rem; }
figcaption { font-size: .7rem; line-height: 1.2; } img { width: 48px; height: 48px; image-rendering: pixelated; }
td img { margin-right: 2px; } .warn { color: var(--warn); } small { opacity: .75; }
"""


def page(findings: Findings, pixels: np.ndarray, positions: dict[str, int]) -> str:
    """Return the page; `positions` tells by key where a picture lies among the pixels (N, H, W, 3), uint8.

    The bytes depend on the arguments alone. Names and captions of pictures are foreign text: each is escaped, and the
    page's content security policy runs no script and loads nothing.
    """
    pictures = _Pictures(pixels, positions)
    parts = [
        _overview(findings),
        _sufficiency(findings),
        _classes(findings, pictures),
        _sizes_and_colours(findings),
        _duplicates(findings, pictures),
        _reasons("Set aside", findings["rejects"], "No picture was set aside."),
        _reasons("Not heeded", findings["ignored"], "Every colour profile was heeded."),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>The pictures</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


class _Pictures:
    """Small versions of pictures as data URLs."""

    def __init__(self, pixels: np.ndarray, positions: dict[str, int]) -> None:
        self.pixels = pixels
        self.positions = positions

    def tag(self, key: str) -> str:
        """Return an img element."""
        picture = Image.fromarray(self.pixels[self.positions[key]])
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.BOX)
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        data = base64.b64encode(stream.getvalue()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(key)}" title="{escape(key)}">'


def _overview(findings: Findings) -> str:
    splits = findings["splits"]
    facts = {
        "pictures": findings["pictures"],
        "files": findings["files"],
        "train": splits["train"],
        "hold-out": splits["holdout"],
        "groups": findings["groups"],
        "pixels a side": findings["resolution"],
        "set aside": findings["rejects"]["count"],
    }
    listed = "".join(f"<div><dt>{name}</dt><dd>{value:,}</dd></div>" for name, value in facts.items())
    licences = ", ".join(f"{escape(name)} ({count:,})" for name, count in findings["licences"].items())
    return f"<h1>The pictures</h1><dl>{listed}</dl><p>Licences: {licences}</p>"


def _sufficiency(findings: Findings) -> str:
    told = "".join(f"<li>{escape(line)}</li>" for line in findings["sufficiency"])
    judged = f"<ul>{told}</ul>" if told else f"<p>{FEW:,} training pictures or more: enough to begin with.</p>"
    head = _row(["FFHQ-256, pictures", "StyleGAN2", "+ DiffAugment", "+ ADA"], "th")
    rows = [
        [f"{r['pictures']:,}", *(_score(r[m]) for m in ("stylegan2", "diffaugment", "ada"))]
        for r in findings["published"]
    ]
    body = "".join(_row(row) for row in rows)
    source = f"FID as published, lower is better. StyleGAN2 and DiffAugment: {DIFFAUGMENT_SOURCE}. ADA: {ADA_SOURCE}; "
    note = escape(source + "with 1,000 pictures, users of its code report 24 to 40.")
    return f'<h2>Are they enough?</h2>{judged}<div class="wide"><table>{head}{body}</table></div><small>{note}</small>'


def _score(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.2f}"


def _row(cells: list[str], kind: str = "td") -> str:
    """Return a table's row of plain text, the numbers right-aligned."""
    return "<tr>" + "".join(f'<{kind} class="n">{escape(cell)}</{kind}>' for cell in cells) + "</tr>"


def _classes(findings: Findings, pictures: _Pictures) -> str:
    classes = findings["classes"]
    named = [one for one in classes if one["warning"]]
    order = sorted(classes, key=lambda one: (not one["warning"], one["label"]))[:CLASSES_SHOWN]
    shown = sorted(order, key=lambda one: one["label"])
    heads = ("class", "pictures", "train", "hold-out", "groups")
    head = "".join(f'<th class="{"name" if n == 0 else "n"}">{name}</th>' for n, name in enumerate(heads))
    body = "".join(_class(one, pictures) for one in shown)
    more = f"<p>{len(classes) - len(shown):,} more are in report.json.</p>" if len(classes) > len(shown) else ""
    told = f'<p class="warn">{len(named):,} of {len(classes):,} classes want a look.</p>' if named else ""
    table = f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
    return f"<h2>Classes and splits</h2>{told}{table}{more}"


def _class(one: dict[str, Any], pictures: _Pictures) -> str:
    warning = f'<br><span class="warn">{escape(one["warning"])}</span>' if one["warning"] else ""
    numbers = (
        f"{one['pictures']:,} ({one['share']:.1%})",
        f"{one['train']:,}",
        f"{one['holdout']:,} ({one['holdout_share']:.0%})",
        f"{one['groups']:,}",
    )
    cells = "".join(f'<td class="n">{number}</td>' for number in numbers)
    images = "".join(map(pictures.tag, one["examples"]))
    name = f'<td class="name">{escape(one["name"] or "(none)")}{warning}</td>'
    return f'<tr class="first">{name}{cells}</tr><tr><td colspan="5">{images}</td></tr>'


def _sizes_and_colours(findings: Findings) -> str:
    charts = [
        f"<div>{bars(s['bins'], f'{name} of files')}<small>{name} in pixels, bins from each power of two: smallest "
        f"{s['smallest']:,}, median {s['median']:,}, largest {s['largest']:,}</small></div>"
        for name, s in findings["sizes"].items()
    ]
    colour = findings["colour"]
    told = "; ".join(
        f"{name} {mean:.1f} \u00b1 {deviation:.1f}"
        for name, mean, deviation in zip(("red", "green", "blue"), colour["mean"], colour["std"], strict=True)
    )
    curve = curves(colour["histogram"], "shares of the values 0 to 255 per channel")
    charts.append(f"<div>{curve}<small>values from 0 to 255, mean \u00b1 deviation: {told}</small></div>")
    return f'<h2>Sizes and colours</h2><div class="charts">{"".join(charts)}</div>'


def _duplicates(findings: Findings, pictures: _Pictures) -> str:
    found = findings["duplicates"]
    if not found["sets"]:
        return "<h2>Duplicates</h2><p>No two files are alike.</p>"
    told = (
        f"{found['sets']:,} sets of files that are alike, {found['files']:,} files in all. Those of one group stay on "
        f"one side of the split; {found['of_several_groups']:,} sets have more than one group, because the source or "
        f"an earlier version of the data says so, and {found['of_both_splits']:,} of them lie in both splits."
    )
    return f"<h2>Duplicates</h2><p>{told}</p>" + "".join(_set(one, pictures) for one in found["shown"])


def _set(one: dict[str, Any], pictures: _Pictures) -> str:
    figures = "".join(
        f"<figure>{pictures.tag(e['key'])}<figcaption>{escape(e['key'])}<br>{e['split']}</figcaption></figure>"
        for e in one["examples"]
    )
    kind = "identical pixels" if one["identical"] else "nearly alike"
    warn = ' class="warn"' if one["both_splits"] else ""
    groups = escape(", ".join(one["groups"]))
    return f"<div><p{warn}>{one['files']:,} files, {kind}, group {groups}</p>{figures}</div>"


def _reasons(title: str, found: dict[str, Any], nothing: str) -> str:
    if not found["count"]:
        return f"<h2>{title}</h2><p>{nothing}</p>"
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(reason)}</td></tr>" for k, reason in found["first"].items())
    more = (
        f"<p>The first {len(found['first'])} of {found['count']:,}.</p>" if found["count"] > len(found["first"]) else ""
    )
    return f"<h2>{title}</h2>{more}<table>{rows}</table>"
