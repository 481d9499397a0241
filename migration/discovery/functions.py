"""PostgreSQL's functions that SQLite has too, on the sorts of values for which both give the same."""

from __future__ import annotations

import re
from typing import Callable, Dict, Sequence

from migration.discovery.comparisons import alike, trimmed
from migration.discovery.sqlite_types import Sort
from migration.discovery.values import Names, Untranslatable, Value

Arguments = Sequence[Value]


def called(name: str, arguments: Arguments, names: Names) -> Value:
    """A call of a function, by its name in PostgreSQL. Raises Untranslatable."""
    try:
        return _FUNCTIONS[name](name, arguments, names)
    except (IndexError, ValueError):
        raise Untranslatable("its %s() is not known to mean the same in SQLite" % name) from None


def require_known(name: str) -> None:
    """Raises Untranslatable for a function that is not called here."""
    if name not in _FUNCTIONS:
        raise Untranslatable("%s() is not known to mean the same in SQLite" % name)


def same_sort(values: Arguments) -> Value:
    """What several values are that may stand for each other, without their SQL."""
    first = values[0]
    if {value.sort for value in values} == {Sort.INTEGER, Sort.DECIMAL}:
        return Value("", Sort.DECIMAL)
    if any((value.sort, value.enum) != (first.sort, first.enum) for value in values):
        raise Untranslatable("its values are of different types")
    return Value("", first.sort, None, all(value.ordered for value in values), first.enum)


def _coalesce(name: str, arguments: Arguments, names: Names) -> Value:
    return same_sort(arguments)._replace(sql="coalesce(%s)" % _listed(arguments))


def _nullif(name: str, arguments: Arguments, names: Names) -> Value:
    left, right = alike(*arguments)
    if left.sort is Sort.PADDED:
        raise ValueError
    return left._replace(sql="nullif(%s, %s)" % (left.sql, right.sql), constant=None)


def _length(name: str, arguments: Arguments, names: Names) -> Value:
    (value,) = arguments
    if value.sort is Sort.PADDED:
        value = trimmed(value)
    elif value.sort not in (Sort.TEXT, Sort.BYTES):
        raise ValueError
    return Value("length(%s)" % value.sql, Sort.INTEGER)


def _octets(name: str, arguments: Arguments, names: Names) -> Value:
    (value,) = arguments
    if value.sort is Sort.BYTES:
        return Value("length(%s)" % value.sql, Sort.INTEGER)
    if not names.utf8:
        raise Untranslatable("the database is not in UTF-8, as SQLite is")
    return Value("length(CAST(%s AS BLOB))" % _text(value), Sort.INTEGER)


def _trim(name: str, arguments: Arguments, names: Names) -> Value:
    for value in arguments:
        _text(value)
    return Value("%s(%s)" % (name.replace("btrim", "trim"), _listed(arguments)), Sort.TEXT)


def _changed_case(name: str, arguments: Arguments, names: Names) -> Value:
    if not names.lax:
        raise Untranslatable("SQLite's %s() knows ASCII letters alone" % name)
    (value,) = arguments
    return Value("%s(%s)" % (name, _text(value)), Sort.TEXT)


def _left(name: str, arguments: Arguments, names: Names) -> Value:
    value, length = arguments
    return Value("substr(%s, 1, %d)" % (_text(value), _whole(length, 0)), Sort.TEXT)


def _right(name: str, arguments: Arguments, names: Names) -> Value:
    value, length = arguments
    return Value("substr(%s, -%d)" % (_text(value), _whole(length, 1)), Sort.TEXT)


def _substring(name: str, arguments: Arguments, names: Names) -> Value:
    value, start, *length = arguments
    end = ", %d" % _whole(length[0], 0) if length else ""
    return Value("substr(%s, %d%s)" % (_text(value), _whole(start, 1), end), Sort.TEXT)


def _absolute(name: str, arguments: Arguments, names: Names) -> Value:
    (value,) = arguments
    if value.sort is not Sort.INTEGER:
        raise Untranslatable("SQLite reckons with doubles")
    return Value("abs(%s)" % value.sql, Sort.INTEGER)


def _count_nulls(name: str, arguments: Arguments, names: Names) -> Value:
    word = "IS NULL" if name == "num_nulls" else "IS NOT NULL"
    return Value("(%s)" % " + ".join("(%s %s)" % (one.sql, word) for one in arguments), Sort.INTEGER)


# By its first character: SQLite's json_type() fails on JSON that is nested deeper than it reads.
_JSON_TYPE = (
    "CASE substr({0}, 1, 1) WHEN '{{' THEN 'object' WHEN '[' THEN 'array' WHEN '\"' THEN 'string' WHEN 't' THEN 'boolean'"
    " WHEN 'f' THEN 'boolean' WHEN 'n' THEN 'null' ELSE CASE WHEN {0} IS NOT NULL THEN 'number' END END"
)


def _json_type(name: str, arguments: Arguments, names: Names) -> Value:
    (value,) = arguments
    if value.sort is not Sort.JSONB:
        raise ValueError
    return Value(_JSON_TYPE.format(value.sql), Sort.TEXT)


def _text(value: Value) -> str:
    if value.sort is not Sort.TEXT:
        raise ValueError
    return value.sql


def _whole(value: Value, least: int) -> int:
    """A constant whole number, at least this."""
    if value.constant is None or not re.fullmatch(r"\d{1,9}", value.constant) or int(value.constant) < least:
        raise ValueError
    return int(value.constant)


def _listed(arguments: Arguments) -> str:
    return ", ".join(value.sql for value in arguments)


_FUNCTIONS: Dict[str, Callable[[str, Arguments, Names], Value]] = {
    "coalesce": _coalesce,
    "nullif": _nullif,
    **dict.fromkeys(("length", "char_length", "character_length"), _length),
    "octet_length": _octets,
    **dict.fromkeys(("btrim", "ltrim", "rtrim"), _trim),
    **dict.fromkeys(("lower", "upper"), _changed_case),
    "left": _left,
    "right": _right,
    **dict.fromkeys(("substr", "substring"), _substring),
    "abs": _absolute,
    **dict.fromkeys(("num_nulls", "num_nonnulls"), _count_nulls),
    "jsonb_typeof": _json_type,
}
