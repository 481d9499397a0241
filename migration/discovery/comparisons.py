"""Comparisons as SQLite has to make them, so that they come out as PostgreSQL's do on the values before."""

from __future__ import annotations

import struct
from typing import Sequence, Tuple

from migration.discovery.sqlite_types import Sort
from migration.discovery.values import NUMBERS, Untranslatable, Value, single

EQUALITIES = ("=", "<>", "IS", "IS NOT")
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
# Of a number as text, against 0: PostgreSQL writes no exponent, and NaN is more than any number
_SIGNS = {
    ">=": "{0} NOT GLOB '-*'",
    "<": "{0} GLOB '-*'",
    ">": "({0} NOT GLOB '-*' AND {0} GLOB '*[1-9IN]*')",
    "<=": "({0} GLOB '-*' OR {0} NOT GLOB '*[1-9IN]*')",
    "=": "{0} NOT GLOB '*[1-9IN]*'",
    "<>": "{0} GLOB '*[1-9IN]*'",
}
_DATED = (Sort.DATE, Sort.TIMESTAMP, Sort.TIMESTAMPTZ)


def compared(left: Value, operator: str, right: Value, lax: bool = False) -> str:
    for one, other, sign in ((left, right, operator), (right, left, _TURNED.get(operator, operator))):
        if one.sort is Sort.DIGITS and other.sort in NUMBERS and other.sql == "0" and sign in _SIGNS:
            return _SIGNS[sign].format(one.sql)
    left, right = alike(left, right)
    if operator in EQUALITIES:
        return "%s %s %s" % (left.sql, operator, right.sql)
    sort = left.sort
    if sort in _DATED and not lax:
        return "(%s, %s) %s (%s, %s)" % (_year(left), left.sql, operator, _year(right), right.sql)
    if sort in (Sort.DOUBLE, Sort.SINGLE) and not lax:
        left, right = _finite(left), _finite(right)
    elif sort is Sort.TEXT and not (left.ordered or right.ordered or lax):
        raise Untranslatable("SQLite orders text by its bytes, PostgreSQL by its collation")
    elif sort in (Sort.PADDED, Sort.ENUM):
        raise Untranslatable("SQLite orders such text by its bytes")
    return "%s %s %s" % (left.sql, operator, right.sql)


def alike(left: Value, right: Value) -> Tuple[Value, Value]:
    """Both sides as values of one sort that SQLite compares as PostgreSQL does. Raises Untranslatable."""
    if left.sort is right.sort:
        if left.sort in (Sort.OTHER, Sort.RECORD, Sort.DIGITS, Sort.FOLDED, Sort.JSONB):
            raise Untranslatable(_INCOMPARABLE.get(left.sort, "SQLite compares the text of such values"))
        if left.sort is Sort.ENUM and left.enum != right.enum:
            raise Untranslatable("it compares two types")
        if left.sort is Sort.PADDED:
            return trimmed(left), trimmed(right)
        return left, right
    numbers = {left.sort, right.sort}
    if numbers == {Sort.INTEGER, Sort.DECIMAL}:
        return left._replace(sort=Sort.DECIMAL), right._replace(sort=Sort.DECIMAL)
    for one, other in ((left, right), (right, left)):
        if one.sort in (Sort.DOUBLE, Sort.SINGLE) and other.sort in NUMBERS and other.constant is not None:
            if one.sort is Sort.SINGLE:
                __require_single(other)
            same = other._replace(sort=one.sort)
            return (one, same) if one is left else (same, one)
    if Sort.DIGITS in numbers:
        raise Untranslatable(_INCOMPARABLE[Sort.DIGITS])
    raise Untranslatable("it compares two types")


_INCOMPARABLE = {
    Sort.DIGITS: "the numbers are kept as text, which compares by its characters",
    Sort.FOLDED: "SQLite's NOCASE knows the case of ASCII letters alone",
}


def __require_single(constant: Value) -> None:
    """A constant that real and double precision write alike: real 0.1 is more than 0.1 in PostgreSQL."""
    number = float(constant.constant or "")
    if struct.unpack("f", struct.pack("f", number))[0] != number or float(single(number)) != number:
        raise Untranslatable("a real is compared with a number that it cannot hold")


def trimmed(value: Value) -> Value:
    return value if value.constant is not None else value._replace(sql="rtrim(%s, ' ')" % value.sql)


def _finite(value: Value) -> Value:
    """-Infinity is kept as text, which SQLite takes for more than any number; so it does Infinity and NaN, rightly."""
    if value.constant is not None:
        return value
    return value._replace(sql="CASE {0} WHEN '-Infinity' THEN -9e999 ELSE {0} END".format(value.sql))


def _year(value: Value) -> str:
    """By which dates of different years compare: the text of those before year 0 or after 9999 does not tell."""
    if value.constant is not None:
        infinite = {"infinity": "9e9", "-infinity": "-9e9"}.get(value.constant)
        return infinite or str(int(value.constant[: value.constant.index("-", 1)]))
    return (
        "CASE {0} WHEN 'infinity' THEN 9e9 WHEN '-infinity' THEN -9e9 ELSE CAST({0} AS INTEGER) END".format(
            value.sql
        )
    )


def one_of(left: Value, operator: str, items: Sequence[Value]) -> Value:
    pairs = [alike(left, item) for item in items]
    return Value(
        "%s %s (%s)" % (pairs[0][0].sql, operator, ", ".join(item.sql for _, item in pairs)), Sort.BOOLEAN
    )
