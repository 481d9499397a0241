"""Names and values within SQL text."""

from __future__ import annotations

from typing import Iterable


def quote(identifier: str) -> str:
    """A name, for PostgreSQL and for SQLite."""
    return '"' + identifier.replace('"', '""') + '"'


def qualified(alias: str, name: str) -> str:
    """A column of a table that a query calls ``alias``."""
    return alias + "." + quote(name)


def literal(value: str) -> str:
    """A text literal, for COPY, which takes no parameters. Pinned standard_conforming_strings is not relied on."""
    return " E'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def texts(values: Iterable[str]) -> str:
    """An array of text literals."""
    return "ARRAY[%s]::text[]" % ", ".join(map(literal, values))
