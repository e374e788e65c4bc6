"""Pages from thaw/templates."""

from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).with_name("templates")


def render(name: str, **content: Any) -> str:
    """Fills a template; in HTML all that is filled in is escaped.

    Raises:
        jinja2.UndefinedError: where the template names what is not there.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = escape_cell
    return environment.get_template(name).render(content)


def escape_cell(text: str) -> str:
    """Any text, in a cell of a Markdown table."""
    text = " ".join(str(text).split())
    for character in "\\|`*_<>[]":
        text = text.replace(character, f"\\{character}")
    return text
