"""The SQLite type of a column, and what its values are like there, so that an expression on them can mean the same."""

from __future__ import annotations

import enum
import re
from typing import NamedTuple, Optional, Sequence, Tuple

from migration.model import Kind

_DIGITS = 15  # of a decimal number: as many come back from a double as they were
_WHOLE_DIGITS = 18  # of a whole number: they fit into 64 bits
_FURTHEST = 290  # places behind or before the point, within the reach of a double's exponent


class Sort(enum.Enum):
    """Values that are written and compared alike in SQLite."""

    INTEGER = enum.auto()
    BOOLEAN = enum.auto()
    DOUBLE = enum.auto()
    SINGLE = enum.auto()  # real: a double of its shortest decimal form
    DECIMAL = enum.auto()  # numeric that a double or a 64-bit integer holds
    DIGITS = enum.auto()  # numeric as text
    TEXT = enum.auto()
    PADDED = enum.auto()  # char(n), with its blanks
    FOLDED = enum.auto()  # citext
    ENUM = enum.auto()
    UUID = enum.auto()
    DATE = enum.auto()
    TIME = enum.auto()
    TIMESTAMP = enum.auto()
    TIMESTAMPTZ = enum.auto()
    BYTES = enum.auto()
    JSONB = enum.auto()
    RECORD = enum.auto()  # of a composite type
    OTHER = enum.auto()


MOMENTS = {
    Sort.DATE: Kind.DATE,
    Sort.TIME: Kind.TIME,
    Sort.TIMESTAMP: Kind.TIMESTAMP,
    Sort.TIMESTAMPTZ: Kind.TIMESTAMPTZ,
}


class Form(NamedTuple):
    """``declared``: the SQLite type. ``says``: what becomes of a value. ``limit``: what SQLite does not check of the type."""

    sort: Sort
    declared: str
    says: str
    limit: Optional[str] = None


_MOMENT = "`YYYY-MM-DDTHH:MM:SS`, with six fractional digits or none"
_PLAIN = {
    Kind.INTEGER: Form(Sort.INTEGER, "INTEGER", "as it is"),
    Kind.BOOLEAN: Form(Sort.BOOLEAN, "INTEGER", "1 or 0"),
    Kind.UUID: Form(Sort.UUID, "TEXT", "36 characters, lower case"),
    Kind.DATE: Form(Sort.DATE, "TEXT", "`YYYY-MM-DD`"),
    Kind.TIME: Form(Sort.TIME, "TEXT", "`HH:MM:SS`, with six fractional digits or none"),
    Kind.TIMETZ: Form(Sort.OTHER, "TEXT", "`HH:MM:SS+HH:MM`, with six fractional digits or none"),
    Kind.TIMESTAMP: Form(Sort.TIMESTAMP, "TEXT", _MOMENT),
    Kind.TIMESTAMPTZ: Form(Sort.TIMESTAMPTZ, "TEXT", _MOMENT + ", in UTC with `+00:00`"),
    Kind.INTERVAL: Form(Sort.OTHER, "TEXT", "ISO 8601 duration: `P1Y-2DT3H4M5.5S`"),
    Kind.BYTEA: Form(Sort.BYTES, "BLOB", "the bytes"),
    Kind.JSON: Form(Sort.OTHER, "TEXT", "JSON text, digits untouched"),
    Kind.JSONB: Form(Sort.JSONB, "TEXT", "JSON text, digits untouched"),
    Kind.STRUCTURE: Form(Sort.OTHER, "TEXT", "JSON text"),
}


def form(
    kind: Kind, base: str, is_enum: bool, labels: Sequence[str] = (), deterministic: bool = True
) -> Form:
    """What a column becomes. ``base``: its type under all domains, with its modifier, as format_type() writes it."""
    if is_enum:
        shown = ", ".join(
            "'%s'" % label if label.strip() != label or not label else label for label in labels
        )
        return Form(Sort.ENUM, "TEXT", "the label: one of " + shown if labels else "the label")
    name, modifier = _parts(base)
    if kind is Kind.NUMERIC:
        return _number(name, modifier)
    if kind is Kind.FLOAT:
        sort = Sort.SINGLE if name == "real" else Sort.DOUBLE
        return Form(sort, "REAL", "the double of its shortest exact decimal form")
    if kind in _PLAIN:
        return _PLAIN[kind]
    if name == "citext" or name.endswith(".citext"):
        return Form(
            Sort.FOLDED,
            "TEXT COLLATE NOCASE",
            "as it is; compared without regard to the case of ASCII letters",
        )
    if name == "character":
        return Form(Sort.PADDED, "TEXT", "with its padding blanks", "its length")
    if name in ("text", "character varying", "name"):
        sort = Sort.TEXT if deterministic else Sort.OTHER
        return Form(sort, "TEXT", "as it is", "its length" if modifier else None)
    return Form(Sort.OTHER, "TEXT", "PostgreSQL's text form")


def _number(name: str, modifier: Tuple[int, ...]) -> Form:
    if name == "money":
        return Form(Sort.DIGITS, "TEXT", "the number's digits, without the currency's sign")
    if modifier:
        precision, scale = modifier[0], modifier[1] if len(modifier) > 1 else 0
        limit = "how many digits it has"
        if scale <= 0 and precision - scale <= _WHOLE_DIGITS:
            return Form(Sort.DECIMAL, "NUMERIC", "the same whole number", limit)
        if precision <= _DIGITS and abs(scale) <= _FURTHEST:
            return Form(Sort.DECIMAL, "REAL", "the double with the same digits", limit)
    return Form(Sort.DIGITS, "TEXT", "its digits as text, as a double does not hold them all")


def fixed_places(base: str) -> Optional[str]:
    """How many digits behind the point all values of a number's type have, so that equal ones are equal as text."""
    name, modifier = _parts(base)
    if name == "money":
        return name
    return str(modifier[1] if len(modifier) > 1 else 0) if modifier else None


_SHOWN = re.compile(r"(.*?)(?:\((-?\d+(?:,-?\d+)*)\))?( with(?:out)? time zone)?", re.DOTALL)


def _parts(shown: str) -> Tuple[str, Tuple[int, ...]]:
    """A type's name and its modifier: ``numeric(10,2)``, ``timestamp(3) without time zone``."""
    found = _SHOWN.fullmatch(shown)
    assert found is not None
    return found[1] + (found[3] or ""), tuple(map(int, found[2].split(","))) if found[2] else ()


_SORTS = {
    "smallint": Kind.INTEGER,
    "integer": Kind.INTEGER,
    "bigint": Kind.INTEGER,
    "boolean": Kind.BOOLEAN,
    "real": Kind.FLOAT,
    "double precision": Kind.FLOAT,
    "numeric": Kind.NUMERIC,
    "uuid": Kind.UUID,
    "date": Kind.DATE,
    "time without time zone": Kind.TIME,
    "timestamp without time zone": Kind.TIMESTAMP,
    "timestamp with time zone": Kind.TIMESTAMPTZ,
    "bytea": Kind.BYTEA,
    "jsonb": Kind.JSONB,
}


def sort_of(base: str, is_enum: bool) -> Sort:
    """The sort of a type that an expression names; OTHER for those on which nothing is translated."""
    return form(_SORTS.get(_parts(base)[0], Kind.TEXT), base, is_enum).sort
