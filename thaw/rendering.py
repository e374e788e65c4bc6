"""Pages from thaw/templates."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

TEMPLATES = Path(__file__).with_name("templates")


def render(name: str, filters: Mapping[str, Callable], **content: Any) -> str:
    """Fills a template; in HTML all that is filled in is escaped.

    Args:
        name: of a file among the templates.
        filters: functions that it knows.
        content: values that it knows.

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
    environment.filters.update(filters)
    return environment.get_template(name).render(content)
