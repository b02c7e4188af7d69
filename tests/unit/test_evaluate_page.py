"""The evaluation pages on made-up reports: what they say, what they never compare, what hostile text does to them."""

import functools
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from stages.errors import InputError
from stages.evaluate.page.alike import differing, group
from stages.evaluate.page.comparison_page import comparison_page
from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.images import cut_sheet, shrink
from stages.evaluate.page.model_page import model_page
from stages.evaluate.page.numerals import number, plain, with_interval
from stages.evaluate.page.score_names import by_network, parse
from stages.evaluate.page.section import facts_and_tables
from stages.sheet import sheet

NETWORK = "efficientnet_lite0"
HOSTILE = "<script>alert(1)</script>\"'&$x_1$"
HEAVIEST, CHARTS = 3_000_000, 400_000  # bytes of a page, and of its charts at most
SHEET = 250_000  # bytes that each other way to sample adds at most
VOID = {"meta", "img", "br", "link", "input"}


class Reader(HTMLParser):
    """Collects a page's elements and refuses ones that are closed in another order than they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def words(page: str) -> str:
    return " ".join(" ".join(read(page).text).split())


def scores(shift: float = 0.0) -> dict[str, Any]:
    fd, kid = f"fd_{NETWORK}", f"kid_{NETWORK}"
    return {
        "scores": {
            fd: 109.7 + shift,
            f"{fd}_inf": 77.25,
            kid: 0.0412,
            f"kid_std_{NETWORK}": 0.004,
            f"precision_{NETWORK}": 0.43,
        },
        "intervals": {fd: {"low": 105.1 + shift, "high": 114.2 + shift, "standard_error": 2.3}},
        "floor": {fd: 31.4, kid: 0.0003, f"precision_{NETWORK}": 0.83},
        "train_reference": {fd: 101.2},
        "baselines": {"untrained": {fd: 420.1}, "colour_histogram": {fd: 612.0}},
        "smallest_difference": {fd: 6.4},
        "recipes": {NETWORK: {"features": NETWORK, "resize": "tf", "kid": {"subset": 16}, "hash": "a" * 64}},
        "warnings": ["few pictures"],
        "identity": {"weights": "b" * 64, "dataset": "c" * 64},
    }


def benchmark(milliseconds: float = 1.5, hardware: str = "h" * 64) -> dict[str, Any]:
    row = {"runtime": "onnxruntime", "provider": "CPUExecutionProvider", "device": "cpu", "contention": 1.1}
    row |= {"p50_ms": milliseconds, "p95_ms": 2 * milliseconds, "p99_ms": None, "runs": 10, "first_run_ms": 3.0}
    rows = [row | {"batch": batch, "pictures_per_second": 1000 * batch / milliseconds} for batch in (1, 8)]
    skipped = [{"provider": "CUDAExecutionProvider", "reason": "no driver", "fix": "none"}]
    summary = {"p50_ms_batch1": milliseconds, "pictures_per_second_best": 5000.0}
    return {"hardware": {"cpu": "AMD", "cores": 2, "gpu": None}, "hardware_hash": hardware, "rows": rows} | {
        "summary": summary,
        "skipped": skipped,
    }


def noise(*shape: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=3)).integers(0, 256, shape, np.uint8)


def content(name: str = "dcgan", shift: float = 0.0, **changes: Any) -> ModelReport:
    pictures = noise(16, 8, 8, 3)
    pairs = [(pictures[n], pictures[n + 1], n + 1.0, f"key{n}.png") for n in range(4)]
    record = {"kimg": 200.0, "settings": {"family": "dcgan", "batch": 16}, "git_commit": "d" * 40, "alerts": []}
    made = ModelReport(name, scores(shift), pictures, pairs, noise(2, 5, 8, 8, 3), benchmark(), record)
    return replace(made, **changes)


@functools.cache
def standard_page() -> str:
    return model_page(content())


def empty() -> ModelReport:
    return ModelReport("nothing", {}, np.empty((0, 0, 0, 3), np.uint8))


def test_model_page_tells_scores_with_intervals_and_direction() -> None:
    page = words(standard_page())
    assert "109.7 [105.1, 114.2]" in page
    assert "0.0412 ± 0.004" in page
    assert "Fréchet distance at infinite N 77.25 lower" in page  # it has neither interval nor deviation
    for told in ("lower", "higher", "floor (real pictures)", "colour histogram", "seeds 0 to 15", "few pictures"):
        assert told in page
    assert "a" * 64 in page  # the recipe's hash, whole


def test_model_page_depends_on_its_argument_alone() -> None:
    assert model_page(content()) == standard_page()
    assert comparison_page([content()]) == comparison_page([content()])


def test_model_page_runs_no_script_and_loads_nothing() -> None:
    page = standard_page()
    reader = read(page)
    policy = [one["content"] for one in reader.all("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"]
    assert not reader.all("script")
    assert not reader.all("link")
    assert "url(http" not in page
    for attributes in reader.all("img"):
        assert attributes["src"].startswith("data:image/png;base64,")
        assert attributes["alt"]
    links = [value for _, attributes in reader.tags for key, value in attributes.items() if key.endswith("href")]
    assert links
    assert all(link.startswith("#") for link in links)


def test_links_lead_to_elements_with_ids_that_are_there_once() -> None:
    reader = read(standard_page())
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [value for _, attributes in reader.tags for key, value in attributes.items() if key.endswith("href")]
    assert {link[1:] for link in links} <= set(ids)


def test_charts_take_their_colours_from_the_page() -> None:
    page = standard_page()
    assert "#0a0b" not in page
    for colour in set(re.findall(r"var\(--(\w+)\)", page)):
        assert f"--{colour}:" in page
    assert all(attributes["aria-label"] for attributes in read(page).all("svg"))


def test_absent_parts_are_told_in_one_line() -> None:
    page = words(model_page(empty()))
    for told in ("No score was computed.", "No sample was drawn.", "It was not measured.", "no benchmark"):
        assert told in page
    report = scores() | {"per_class": {"absent": "no classes in this data set"}}
    assert "no classes in this data set" in words(model_page(content(report=report)))


@pytest.mark.parametrize(
    "value", [{}, {"absent": HOSTILE}, {HOSTILE: HOSTILE, "n": {HOSTILE: {HOSTILE: None}}}, None, [1]]
)
def test_any_part_may_be_absent_empty_or_hostile(value: Any) -> None:
    parts = ("memorisation", "variety", "per_class", "probe", "usefulness", "latent_space", "balance", "spectrum")
    page = model_page(replace(empty(), report=dict.fromkeys((*parts, "recipes", "floor", "scores"), value)))
    assert not read(page).all("script")
    assert words(page).count("It was not measured.") == (0 if isinstance(value, dict) and value else len(parts))


def sampled() -> ModelReport:
    """Return a report of a model that takes guidance, steps, truncation and prompts."""
    row = {"evaluations": 8, "precision": 0.5, "recall": 0.25, "clipped": 0.125}
    part: dict[str, Any] = {"features": NETWORK, "count": 300, "default_steps": 10, "default_guidance": 1.0}
    part |= {"real": {"fd": 31.0, "precision": 0.9, "recall": 0.9, "clipped": 0.5}}
    part["guidance"] = [{"guidance": value, "fd": 90.0 + value, **row} for value in (1.0, 3.0, 7.5)]
    part["steps"] = [{"steps": 5, "fd": 80.0, **row}, {"steps": 10, "fd": 91.0, **row}, {"steps": 7, "absent": HOSTILE}]
    part["prompts"] = ["a cat", HOSTILE]
    part["truncation"] = [{"truncation": value, "fd": 95.0 - value, **row} for value in (0.0, 0.5, 10.0)]
    columns = {"guidance": 3, "steps": 2, "prompts": 2, "truncation": 3}
    sheets = {name: noise(6, count, 8, 8, 3) for name, count in columns.items()}
    return content(report=scores() | {"sampling": part}, sheets=sheets)


def test_other_ways_to_sample_are_shown_with_how_to_read_them() -> None:
    page = model_page(sampled())
    text = words(page)
    assert "By guidance the least Fréchet distance is 91 at 1." in text
    assert "By steps the least Fréchet distance is 80 at 5, at its own 10 it is 91." in text
    assert "By truncation the least Fréchet distance is 85 at 10." in text
    assert "As many real pictures reach 31." in text
    assert "From left to right: 1, 3, 7.5." in text
    assert "From left to right: 5, 10." in text and "From left to right: 0, 0.5, 10." in text  # 7 could not be drawn
    assert f"From left to right: a cat, {' '.join(HOSTILE.split())}." in text
    assert "<script" not in page
    alts = [one["alt"] for one in read(page).all("img")]
    shown = ("3 guidance", "2 steps", "2 prompts", "3 truncation")
    assert [alt for alt in alts if alt.startswith("6 seeds")] == [f"6 seeds of dcgan by {columns}" for columns in shown]
    assert "guidance, steps, truncation" in text  # in the guide


def test_models_that_sample_in_one_way_have_no_such_section() -> None:
    assert "Other ways to sample" not in standard_page() and "guidance" not in standard_page()
    assert "Other ways to sample" in model_page(sampled())


@pytest.mark.parametrize("value", [{}, None, {"absent": HOSTILE}, {"steps": 3, "guidance": [None, {}], "real": {}}])
def test_a_report_of_another_version_still_shows_its_sheets(value: Any) -> None:
    page = model_page(replace(sampled(), report=scores() | {"sampling": value}))
    assert len([one for one in read(page).all("img") if one["alt"].startswith("6 seeds")]) == 4
    assert not read(page).all("script")


def test_foreign_text_is_escaped_everywhere() -> None:
    report = scores() | {"warnings": [HOSTILE], "baselines": {HOSTILE: {f"fd_{NETWORK}": 3.0}}}
    report["recipes"][NETWORK][HOSTILE] = HOSTILE
    pairs = [(noise(8, 8, 3), noise(8, 8, 3), 1.0, HOSTILE)]
    record = {"settings": {HOSTILE: HOSTILE}, "alerts": [{"alert": HOSTILE, "advice": HOSTILE}], "git_commit": HOSTILE}
    hostile = content(name=HOSTILE, report=report, pairs=pairs, record=record)
    for page in (model_page(hostile), comparison_page([hostile, content(), hostile])):
        assert "<script" not in page
        assert HOSTILE in "".join(read(page).text)


def test_infinite_and_missing_scores_are_shown_but_not_drawn() -> None:
    report = scores()
    report["scores"] |= {f"fd_{NETWORK}": float("nan"), f"recall_{NETWORK}": float("inf"), "fid": None}
    page = words(model_page(content(report=report)))
    assert "nan" in page
    assert "FID" in page


@pytest.mark.parametrize("shape", [(64, 256, 256, 3), (400, 64, 64, 3), (3, 1024, 1024, 1)])
def test_pages_stay_light_whatever_the_pictures_are(shape: tuple[int, ...]) -> None:
    pictures = noise(*shape)
    pairs = [(pictures[0], pictures[1], float(n), "k") for n in range(40)]
    heavy = replace(empty(), samples=pictures, pairs=pairs, strips=pictures[None, :3].repeat(8, 0))
    assert len(model_page(heavy)) < HEAVIEST - CHARTS
    grids = dict.fromkeys(("guidance", "steps", "classes"), pictures[None, :3].repeat(6, 0))
    assert len(model_page(replace(heavy, sheets=grids))) < HEAVIEST - CHARTS + 3 * SHEET
    assert len(comparison_page([heavy, heavy])) < HEAVIEST - CHARTS


def test_charts_are_light() -> None:
    assert sum(map(len, re.findall(r"<svg.*?</svg>", standard_page(), re.DOTALL))) < CHARTS / 4


def test_pairs_are_shown_in_their_order_with_distance_and_key() -> None:
    captions = re.findall(r"distance [\d.]+, key\d", words(standard_page()))
    assert captions == [f"distance {n + 1}, key{n}" for n in range(4)]


def test_pictures_of_another_form_are_refused() -> None:
    with pytest.raises(InputError, match="expected uint8"):
        model_page(content(samples=noise(4, 8, 8, 4)))
    with pytest.raises(InputError, match="float32"):
        model_page(content(pairs=[(noise(8, 8, 3).astype(np.float32), noise(8, 8, 3), 1.0, "k")]))


def test_grey_pictures_are_shown() -> None:
    grey = content(samples=noise(4, 8, 8, 1), strips=noise(1, 3, 8, 8, 1), pairs=[])
    assert len(read(model_page(grey)).all("img")) == 2


def test_comparison_gives_verdicts_between_models_of_one_recipe() -> None:
    page = words(comparison_page([content("near"), content("far", 60.0)]))
    assert "Fréchet distance: is … than …" in page
    assert "better" in page
    assert "worse" in page


def test_comparison_says_not_shown_where_the_difference_is_within_the_noise() -> None:
    page = words(comparison_page([content("one"), content("two", 0.5)]))
    assert page.count("not shown") >= 2
    assert "worse \u2212" not in page
    assert "better \u2212" not in page


def test_unlike_recipes_share_no_axis_no_column_and_no_verdict() -> None:
    other = scores(-50.0)
    other["recipes"][NETWORK] |= {"resize": "clean", "hash": "e" * 64}
    first, second = content("first"), content("second", report=other)
    page = comparison_page([first, second])
    text = words(page)
    assert "unlike recipes" in text
    assert "is … than …" not in text
    labels = [attributes["aria-label"] for attributes in read(page).all("svg")]
    assert labels
    assert not any("first" in label and "second" in label for label in labels)
    (groups,) = group([first, second]).values()
    assert differing(groups).rows == [("resize", "tf", "clean")]


def test_scores_without_a_recipe_are_compared_with_none() -> None:
    bare = scores() | {"recipes": {}}
    (groups,) = group([content("a", report=bare), content("b", report=bare)]).values()
    assert [len(one.models) for one in groups] == [1, 1]
    assert "is … than …" not in words(comparison_page([content("a", report=bare), content("b", report=bare)]))


def test_latencies_of_unlike_machines_share_no_axis() -> None:
    models = [content("a"), content("b", benchmark=benchmark(3.0)), content("c", benchmark=benchmark(9.0, "o" * 64))]
    page = comparison_page(models)
    labels = [one["aria-label"] for one in read(page).all("svg") if "latency" in one["aria-label"]]
    assert [label.rpartition(": ")[2] for label in labels] == ["a, b"]
    assert "c is alone with its recipe and machine." in words(page)


def test_comparison_of_nothing_says_so() -> None:
    assert "No model has been evaluated." in words(comparison_page([]))
    assert "No model has samples here." in words(comparison_page([empty()]))


@pytest.mark.parametrize(
    ("name", "kind", "network"),
    [
        ("fid", "fd", "inception"),
        ("fid_inf", "fd_inf", "inception"),
        ("fd_efficientnet_lite0_inf", "fd_inf", "efficientnet_lite0"),
        ("fd_inception_1a2b3c4d", "fd", "inception_1a2b3c4d"),
        ("kid_std_inception", "kid_std", "inception"),
        ("kid_inception", "kid", "inception"),
        ("novel", "novel", ""),
    ],
)
def test_names_of_scores(name: str, kind: str, network: str) -> None:
    found = parse(name)
    assert (found.kind, found.network) == (kind, network)


def test_scores_are_grouped_by_network_in_the_order_of_kinds() -> None:
    groups = by_network(["novel", "recall_a", "kid_std_a", "kid_a", "fid", "fd_a"])
    assert {network: [one.name for one in group] for network, group in groups.items()} == {
        "a": ["fd_a", "kid_a", "recall_a"],
        "inception": ["fid"],
        "": ["novel"],
    }


def test_numbers_as_text() -> None:
    assert [number(value) for value in (109.71, 0.5, -3.0, 12345.6, 7, None, True, "x")] == [
        "109.7", "0.5", "\u22123", "12,346", "7", "\u2013", "\u2013", "\u2013",
    ]  # fmt: skip
    assert number(860.6, 2) == "861"
    assert with_interval(1.0, {"low": None, "high": 2}) == "1"
    assert plain("f" * 64) == "f" * 12
    assert plain(list(range(100))) == "100 values"
    assert plain({"pixel_space": 0.5, "features": None}) == "pixel space 0.5, features \u2013"


def test_trees_become_facts_and_tables() -> None:
    tree = {
        "share": 0.25,
        "copies": {"value": 0.01, "low": 0.0, "high": 0.02, "hits": 5, "count": 500},
        "recall": {"value": 0.5, "low": 0.4, "high": 0.6},
        "classes": {"cat": {"recall": 0.1}, "dog": {"recall": 0.2, "fd": 3.0}},
        "rows": [{"kimg": 1, "loss": 2.0}],
    }
    facts, tables = facts_and_tables(tree)
    assert facts == [("share", "0.25"), ("copies", "0.01 [0, 0.02], 5 of 500"), ("recall", "0.5 [0.4, 0.6]")]
    assert [table.caption for table in tables] == ["classes", "rows"]
    assert tables[0].head == ("", "recall", "fd")
    assert tables[0].rows == [("cat", "0.1", "\u2013"), ("dog", "0.2", "3")]
    assert tables[1].rows == [("1", "2")]


@pytest.mark.parametrize(("side", "channels", "zoom"), [(8, 3, 9), (32, 3, 2), (32, 1, 2), (256, 3, 1)])
def test_a_sheet_is_cut_into_its_pictures(side: int, channels: int, zoom: int) -> None:
    pictures = noise(16, side, side, channels)
    image = np.asarray(sheet(pictures, columns=8, zoom=zoom))
    assert np.array_equal(cut_sheet(image if channels == 3 else image[..., None], 8, "sheet"), pictures)


def test_what_is_no_sheet_is_refused_by_name() -> None:
    with pytest.raises(InputError, match=r"samples\.png is 31 x 30 pixels"):
        cut_sheet(noise(30, 31, 3), 8, "samples.png")


def test_shrinking_averages_whole_blocks() -> None:
    pictures = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    assert shrink(pictures, 16) is pictures
    assert shrink(pictures, 15)[0, :, :, 0].tolist() == [[2, 4], [10, 12]]
