"""Sections to one HTML file that runs no script, loads nothing and escapes every text of others."""

from pathlib import Path

from stages.evaluate.page.section import Section

TEMPLATES = Path(__file__).parent / "templates"
FOOTER = "This page is one file: it runs no script and needs no network. The same numbers are in scores.json."


def render(
    title: str, subtitle: str, facts: list[tuple[str, str]], warnings: list[str], sections: list[Section]
) -> str:
    """Return the page; its bytes depend on the arguments alone."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        facts=facts,
        warnings=warnings,
        sections=sections,
        style=style,
        footer=FOOTER,
    )
