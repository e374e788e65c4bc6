"""Pages from templates."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2


def render(
    template: Path, filters: Mapping[str, Callable], **content: Any
) -> str:
    """Fills a template; in HTML all that is filled in is escaped.

    Args:
        template: its file.
        filters: functions that it knows.
        content: values that it knows.

    Raises:
        jinja2.UndefinedError: if the template names a missing value.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template.name).render(content)
