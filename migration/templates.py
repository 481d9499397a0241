"""HTML from Jinja templates: the validation's page and the summary of all users."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

from migration.printing import plural, printable, size


@functools.lru_cache(maxsize=None)
def template(path: Path) -> Any:
    """The template at ``path``, with the filters below. Raises ImportError without Jinja."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(str(path.parent)),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, several=several, size=size, moment=_moment, seconds=_seconds)
    return environment.get_template(path.name)


def _printable(value: Any) -> Any:
    if hasattr(value, "__html__"):  # the template's own markup
        return value
    return printable(str(value))


def number(value: float) -> str:
    return format(value, ",")


def several(count: int, noun: str) -> str:
    return "%s %s" % (number(count), noun if count == 1 else plural(noun))


def _moment(text: str) -> str:
    return re.sub(r"(Z|\+00:00)$", " UTC", text.replace("T", " ", 1))


def _seconds(value: float) -> str:
    if value < 60:
        return "%.2f s" % value if value >= 0.01 or not value else "< 0.01 s"
    minutes, seconds = divmod(round(value), 60)
    return "%d min %d s" % (minutes, seconds)
