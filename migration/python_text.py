"""Strings and tuples as config.py has them: in messages that say what to write there, and in what discover.py writes."""

from __future__ import annotations

import json
from typing import Sequence


def text(value: str) -> str:
    """A string of Python's, in single quotes where it holds double ones."""
    if value.isprintable() and '"' in value and "'" not in value and "\\" not in value:
        return "'%s'" % value
    return json.dumps(value, ensure_ascii=not value.isprintable())


def names(values: Sequence[str]) -> str:
    """A tuple of strings."""
    return "(%s)" % (", ".join(map(text, values)) + ("," if len(values) == 1 else ""))


def columns_text(columns: Sequence[str]) -> str:
    """One name, or a tuple of several."""
    return text(columns[0]) if len(columns) == 1 else names(columns)


def reference_text(table: str, columns: Sequence[str], parent: str) -> str:
    """What ``Reference(…)`` is given first."""
    return ", ".join([text(table), columns_text(columns), text(parent)])
