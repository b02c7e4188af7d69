"""One model's evaluation as one page that needs no network."""

from stages.evaluate.page.classes import class_section, per_class_section
from stages.evaluate.page.content import ModelReport
from stages.evaluate.page.guide import PARTS, guide_section
from stages.evaluate.page.measured import alerts_of, origin_section, recipe_section
from stages.evaluate.page.numerals import number, plain, short
from stages.evaluate.page.parts import (
    balance_section,
    spectrum_section,
    usefulness_section,
    variety_section,
)
from stages.evaluate.page.pictures import latent_section, memorisation_section, sample_section
from stages.evaluate.page.render import render
from stages.evaluate.page.sampling import sampling_sections
from stages.evaluate.page.score_names import parse
from stages.evaluate.page.scores import score_sections
from stages.evaluate.page.section import Section
from stages.evaluate.page.speed import speed_section

SUBTITLE = "Scores, what they cannot see, and how they were measured."


def model_page(content: ModelReport) -> str:
    """Return the report of one model as HTML; its bytes depend on the argument alone, and foreign text is escaped.

    Raises:
        InputError: a picture is not uint8 with 1 or 3 channels.
    """
    sections = [*score_sections(content), sample_section(content), *_unseen_by_scores(content)]
    sections += [speed_section(content), recipe_section(content.recipes), origin_section(content)]
    measured = [part for part in PARTS if part in content.report and content.absent(part) is None]
    sections.append(guide_section([parse(name) for name in content.part("scores")], measured))
    return render(f"Evaluation of {content.name}", SUBTITLE, _facts(content), _warnings(content), sections)


def _unseen_by_scores(content: ModelReport) -> list[Section]:
    return [
        memorisation_section(content),
        variety_section(content),
        per_class_section(content),
        class_section(content),
        usefulness_section(content),
        latent_section(content),
        *sampling_sections(content),
        balance_section(content),
        spectrum_section(content),
    ]


def _facts(content: ModelReport) -> list[tuple[str, str]]:
    record, identity = content.record or {}, content.part("identity")
    settings = record.get("settings") or {}
    found = {
        "pictures seen, kimg": number(record["kimg"]) if "kimg" in record else None,
        "family": settings.get("family"),
        "objective": settings.get("objective"),
        "data set": identity.get("dataset") or record.get("dataset"),
        "weights": identity.get("weights"),
        "commit": record.get("git_commit"),
    }
    facts = [(name, plain(value)) for name, value in found.items() if value]
    return [(name, text[:12] if name == "commit" else short(text)) for name, text in facts]


def _warnings(content: ModelReport) -> list[str]:
    alerts = [f"During training: {one.get('alert')}: {one.get('advice', '')}" for one in alerts_of(content)]
    return [*map(str, content.report.get("warnings") or []), *alerts]
