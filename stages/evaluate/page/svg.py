"""matplotlib figures as inline SVG that takes its colours and its fonts from the page, so that dark mode is right."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib knows no CSS: these colours stand for the page's own until the figure is text
TEXT, LINE = "#0a0b01", "#0a0b02"
SERIES = tuple(f"#0a0b1{digit}" for digit in range(6))
PAGE_COLOURS = {TEXT: "currentColor", LINE: "var(--line)"}
PAGE_COLOURS |= {colour: f"var(--s{place})" for place, colour in enumerate(SERIES)}
MARKERS = "osD^vP"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": ["sans-serif"],
    "font.size": 10,
    "axes.titlesize": 10,
    "text.parse_math": False,  # names of models and classes may hold a dollar sign
    "axes.unicode_minus": True,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
    "grid.color": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.formatter.use_mathtext": False,
}


@contextmanager
def page_style() -> Iterator[None]:
    """Draw in the page's style, whatever the user's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def new_figure(width: float, height: float) -> "Figure":
    """Return a figure of a size in inches that lays itself out."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.06))


def to_svg(figure: "Figure", alt: str) -> str:
    """Return a figure as an svg element that a page can hold beside others; `alt` says in words what it shows.

    The same figure gives the same bytes; ids are made of `alt`, so that two figures of a page share none.
    """
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": alt}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_page(stream.getvalue(), alt)


def _for_page(text: str, alt: str) -> str:
    body = text[text.index("<svg") :]
    for pattern in (r"\s*<metadata>.*?</metadata>", r"\s*<style.*?</style>", r"\s*<!--.*?-->"):
        body = re.sub(pattern, "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # matplotlib's names of groups are the same in every figure
    body = re.sub(r"font: (?:normal )?([\d. ]*)px [^;\"]*", r"font: \1px system-ui, sans-serif", body)
    for colour, own in PAGE_COLOURS.items():
        body = body.replace(colour, own)
    box = re.search(r'viewBox="([^"]*)"', body)
    view = box.group(1) if box else "0 0 1 1"
    width = float(view.split()[2])
    words = escape(alt)
    look = f"width: {width * 4 / 3:.0f}px"
    head = f'<svg viewBox="{view}" style="{look}" role="img" aria-label="{words}">'
    return re.sub(r"<svg[^>]*>", lambda _: f"{head}<title>{words}</title>", body, count=1).strip()


def light_grid(axes: "Axes", axis: str = "both") -> None:
    """Draw a thin grid behind the data."""
    axes.set_axisbelow(True)
    axes.grid(True, axis=axis, linewidth=0.6)  # type: ignore[arg-type]
    axes.tick_params(which="both", length=0)
