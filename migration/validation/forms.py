"""Whether each cell of SQLite is in its column's form: JSON, UUIDs, dates and times, booleans, ranges, NULL.

SQL picks the cells that look wrong, in one pass over each table, and Python judges them.
"""

from __future__ import annotations

import json
import re
import sqlite3
from datetime import datetime
from typing import Any, Callable, Collection, Iterator, Mapping, NamedTuple, Optional, Tuple

from migration.conversion import STRUCTURED
from migration.model import Kind, Table
from migration.printing import brief
from migration.sql import quote
from migration.sqlite.mapping import Copied, TableMapping
from migration.sqlite.schema import TargetColumn
from migration.validation.report import PREFIXES, Finding

# What is wrong with a value, None where nothing is
Judge = Callable[[Any], Optional[str]]

TOGETHER = 100  # rules in one query; SQLite's expressions may be 1000 deep


class Rule(NamedTuple):
    """A check of one column. ``suspicious``: SQL pre-filter on ``{0}``, never true for a valid value."""

    check: str
    pair: Copied
    suspicious: str
    judge: Judge


def problems(
    database: sqlite3.Connection,
    table: Table,
    mapped: TableMapping,
    columns: Collection[TargetColumn],
    given: Callable[[str], bool],
    proved: Collection[str],
    by_itself: Callable[[str, object], bool],
) -> Iterator[Finding]:
    """Yield each cell that is not in its column's form. Values are never shown.

    ``columns``: those of the table in the database. ``given``: whether the source has something for a column of
    that name; ``changed_defaults`` looks at the others. ``proved``: source columns whose form needs no look, as every
    cell is equal to PostgreSQL's and its type guarantees the form. ``by_itself``: whether the application's own default writes
    a value of this form into a column; the comparison tells whether the value is right.
    """
    rules = [
        rule
        for pair in mapped.copied
        for rule in _rules(table, pair, given(pair.source.name), pair.source.name in proved)
    ]
    name = _row_name(columns)
    for start in range(0, len(rules), TOGETHER):
        some = rules[start : start + TOGETHER]
        names = [quote(rule.pair.target.name) for rule in some]
        rows = (
            database.execute(
                "SELECT {}, {} FROM {} WHERE {} ORDER BY 1".format(
                    name,
                    ", ".join(names),
                    quote(mapped.target),
                    " OR ".join("(%s)" % rule.suspicious.format(column) for rule, column in zip(some, names)),
                )
            )
            if some
            else ()
        )
        for row, *values in rows:
            shown = brief(str(row))
            for rule, value in zip(some, values):
                problem = rule.judge(value)
                if problem and not (rule.check == "types" and by_itself(rule.pair.target.name, value)):
                    yield Finding(
                        rule.check,
                        "%s: %s %s, column %s %s"
                        % (PREFIXES[rule.check], mapped.target, shown, rule.pair.target.name, problem),
                        mapped.target,
                        shown,
                        rule.pair.target.name,
                    )


def _rules(table: Table, pair: Copied, given: bool, proved: bool) -> Iterator[Rule]:
    name, kind = pair.source.name, pair.source.kind
    wanted = table.json_types.get(name)
    if kind in STRUCTURED or wanted is not None:
        yield Rule(
            "json", pair, _present(_JSON_SQL.get(wanted, _JSON_SQL[object])), _json_judge(wanted or object)
        )
    if not given:
        return
    if (pair.source.not_null and not proved) or (pair.target.not_null and not pair.source.not_null):
        yield Rule("types", pair, "{0} IS NULL", lambda value: "is NULL" if value is None else None)
    form = BY_KIND.get(kind)
    if form is not None and not proved:
        yield Rule("types", pair, _present(form[0]), _unless_null(form[1]))
    limits = table.ranges.get(name)
    if limits is not None:
        outside = "NOT (typeof({0}) IN ('real', 'integer') AND {0} BETWEEN %r AND %r)" % limits
        yield Rule("types", pair, _present(outside), _unless_null(_range_judge(*limits)))


def _row_name(columns: Collection[TargetColumn]) -> str:
    """SQL expression that names a row: its id, else the first column of its primary key, else its rowid."""
    names = [column.name for column in columns if column.name == "id"]
    names += [column.name for column in columns if column.key == 1]
    return quote(names[0]) if names else "rowid"


def _present(suspicious: str) -> str:
    return "{0} IS NOT NULL AND (%s)" % suspicious


def _unless_null(judge: Judge) -> Judge:
    return lambda value: None if value is None else judge(value)


# JSON

_JSON_SQL: Mapping[Optional[type], str] = {
    object: "typeof({0}) <> 'text' OR NOT json_valid({0})",
    list: "typeof({0}) <> 'text' OR NOT json_valid({0}) OR json_type({0}) <> 'array'",
    dict: "typeof({0}) <> 'text' OR NOT json_valid({0}) OR json_type({0}) <> 'object'",
}
_JSON_NAMES: Mapping[type, str] = {list: "a list", dict: "an object"}


def _json_judge(wanted: type) -> Judge:
    def judge(value: Any) -> Optional[str]:
        if value is None:
            return None
        if not isinstance(value, str):
            return "is not JSON text"
        try:
            parsed = json.loads(value)
        except ValueError:
            return "is not valid JSON"
        except RecursionError:  # deeper than Python reads; SQLite and PostgreSQL took it
            return None
        if isinstance(parsed, wanted):
            return None
        return "is JSON but not %s" % _JSON_NAMES.get(wanted, wanted.__name__)

    return judge


# Forms


_DIGIT = "[0-9]"
_DATE = "-".join(_DIGIT * length for length in (4, 2, 2))
_CLOCK = "[0-2]%s:[0-5]%s:[0-5]%s" % ((_DIGIT,) * 3)
_MOMENT = _DATE + "T" + _CLOCK
_FRACTION = "." + _DIGIT * 6
_HOUR_24 = " OR substr({0}, %d, 2) > '23'"  # or more


def _globs(*patterns: str) -> str:
    """Suspicious: none of the plain forms, of different lengths, in which only a wrong date or hour could hide.

    The length is that in bytes, as GLOB does not look behind a NUL.
    """
    forms = " ".join("WHEN %d THEN '%s'" % (len(_CLASS.sub("#", pattern)), pattern) for pattern in patterns)
    return "typeof({0}) <> 'text' OR ({0} GLOB CASE %s %s END) IS NOT 1" % (_BYTES, forms)


_BYTES = "length(CAST({0} AS BLOB))"
_CLASS = re.compile(r"\[[^]]+\]")
_SIGNED_DATE = r"(?:\d{4}|-\d{4,}|\+\d{5,})-(\d\d)-(\d\d)"
_TIME = r"(?:([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d{6})?|24:00:00)"
_ZONE = r"[+-](0\d|1[0-5]):[0-5]\d(:[0-5]\d)?"  # PostgreSQL has none beyond 16 hours


def _form(pattern: str, name: str, extra: Tuple[str, ...] = ()) -> Judge:
    matches = re.compile(pattern, re.ASCII).fullmatch

    def judge(value: Any) -> Optional[str]:
        if not isinstance(value, str) or not (value in extra or matches(value)):
            return "is not %s" % name
        date = re.match(r"(\d{4})-(\d\d)-(\d\d)", value, re.ASCII)
        if date is not None:
            try:
                datetime(max(int(date[1]), 1) if date[1] != "0000" else 4, int(date[2]), int(date[3]))
            except ValueError:
                return "is not %s" % name
        return None

    return judge


def _integer_judge(value: Any) -> Optional[str]:
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    in_text = isinstance(value, str) and re.fullmatch(r"-?\d+", value, re.ASCII)
    return None if whole or in_text else "is not an integer"


def _numeric_judge(value: Any) -> Optional[str]:
    number = type(value) in (int, float)
    in_text = isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?|NaN|-?Infinity", value, re.ASCII)
    return None if number or in_text else "is not a number"


_INFINITE = ("infinity", "-infinity")
# Call date() only for days after the 28th (slow); '+0 days' forces normalisation, so 31 June is caught.
_NOT_A_CALENDAR_DATE = (
    " OR (substr({0}, 6, 2) NOT BETWEEN '01' AND '12' OR substr({0}, 9, 2) NOT BETWEEN '01' AND '28')"
    " AND date(substr({0}, 1, 10), '+0 days') IS NOT substr({0}, 1, 10)"
)

# kind → (SQL that picks the suspicious cells, judge)
BY_KIND: Mapping[str, Tuple[str, Judge]] = {
    Kind.UUID: (
        _globs("-".join("[0-9a-f]" * length for length in (8, 4, 4, 4, 12))),
        _form(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "a UUID"),
    ),
    Kind.BOOLEAN: (
        "typeof({0}) <> 'integer' OR {0} NOT IN (0, 1)",
        # in a TEXT or REAL column it is one too
        lambda value: None if value in (0, 1, "0", "1") else "is not 0 or 1",
    ),
    "integer": ("typeof({0}) <> 'integer'", _integer_judge),
    "numeric": ("typeof({0}) NOT IN ('real', 'integer')", _numeric_judge),
    Kind.DATE: (_globs(_DATE) + _NOT_A_CALENDAR_DATE, _form(_SIGNED_DATE, "an ISO 8601 date", _INFINITE)),
    Kind.TIME: (_globs(_CLOCK, _CLOCK + _FRACTION) + _HOUR_24 % 1, _form(_TIME, "an ISO 8601 time")),
    Kind.TIMETZ: (
        _globs(_CLOCK + "+0" + _DIGIT + ":[0-5]" + _DIGIT) + _HOUR_24 % 1,
        _form(_TIME + _ZONE, "an ISO 8601 time"),
    ),
    Kind.TIMESTAMP: (
        _globs(_MOMENT, _MOMENT + _FRACTION) + _HOUR_24 % 12 + _NOT_A_CALENDAR_DATE,
        _form(_SIGNED_DATE + "T" + _TIME, "an ISO 8601 timestamp", _INFINITE),
    ),
    Kind.TIMESTAMPTZ: (
        _globs(_MOMENT + "+00:00", _MOMENT + _FRACTION + "+00:00") + _HOUR_24 % 12 + _NOT_A_CALENDAR_DATE,
        _form(_SIGNED_DATE + "T" + _TIME + _ZONE, "an ISO 8601 timestamp", _INFINITE),
    ),
}


def _range_judge(lowest: float, highest: float) -> Judge:
    return lambda value: (
        None
        if type(value) in (int, float) and lowest <= value <= highest
        else "is not between %g and %g" % (lowest, highest)
    )
