"""Values of expressions in SQLite: of what sort they are, and constants as SQLite has them in a column of their sort."""

from __future__ import annotations

import re
import struct
from decimal import Decimal
from typing import Any, Callable, Mapping, NamedTuple, Optional, Tuple

from migration.conversion import Unrepresentable, is_number, moment
from migration.discovery.sqlite_types import MOMENTS, Sort

NUMBERS = (Sort.INTEGER, Sort.DECIMAL, Sort.DOUBLE, Sort.SINGLE)


class Untranslatable(Exception):
    """Why an expression is left out, as the end of a sentence: ``SQLite has no …``."""


class Value(NamedTuple):
    """SQL for SQLite, and the sort of its values. ``constant``: the text of one. ``ordered``: < compares its bytes."""

    sql: str
    sort: Sort
    constant: Optional[str] = None
    ordered: bool = False
    enum: str = ""  # the name of the enum, where it is one


class Names(NamedTuple):
    """What names in an expression stand for. ``types``: enums and domains → base type, and whether it is an enum.

    ``further``: translates nodes that only a query has; None where it does not.
    ``lax``: for a plain index, where another meaning would only make the index useless, never a result wrong.
    """

    columns: Mapping[Tuple[str, ...], Value]
    types: Mapping[str, Tuple[str, bool]]
    utf8: bool = True
    lax: bool = False
    further: Optional[Callable[[Any, Names], Optional[Value]]] = None


def text(value: str) -> str:
    """A text literal of SQLite's."""
    return "'" + value.replace("'", "''") + "'"


def number(digits: str, sort: Sort) -> Value:
    """A number as SQLite keeps it in a column of that sort."""
    if not is_number(digits):
        raise Untranslatable("%s is not a finite number" % digits)
    number = Decimal(digits)
    if number == number.to_integral_value() and abs(number) < 2**53:
        return Value(str(int(number)), sort, digits)
    if sort is Sort.SINGLE:
        shown = single(float(number))
    else:
        shown = repr(float(number))
        if sort is Sort.DECIMAL and Decimal(shown) != number:
            raise Untranslatable("its number has more digits than a double holds")
    return Value(shown, sort, digits)


def single(number: float) -> str:
    """The shortest decimal form of a number of four bytes, as PostgreSQL writes it."""
    try:
        packed = struct.pack("f", number)
    except OverflowError:
        raise Untranslatable("its number is beyond those of four bytes") from None
    forms = ("%.*g" % (digits, number) for digits in range(1, 10))
    return repr(float(next(form for form in forms if struct.pack("f", float(form)) == packed)))


def constant(value: str, sort: Sort, type_name: str, modified: bool) -> Value:
    """A constant of a type, as SQLite has it in a column of that type."""
    if sort in MOMENTS and not (modified and "." in value):
        try:
            shown = str(moment(MOMENTS[sort])(value))
            if sort is Sort.TIMESTAMPTZ and not shown.endswith(("+00:00", "infinity")):
                raise Unrepresentable("not in UTC")
        except Unrepresentable:
            raise Untranslatable("its %s is not understood" % type_name) from None
        return Value(text(shown), sort, shown, ordered=True)
    if sort is Sort.INTEGER and re.fullmatch(r"-?\d+", value) and -(2**63) < int(value) < 2**63:
        return Value(value, sort, value)
    if sort in (Sort.DIGITS, Sort.DECIMAL, Sort.SINGLE, Sort.DOUBLE) and not modified:
        return number(value, Sort.DECIMAL if sort is Sort.DIGITS else sort)
    if sort is Sort.BOOLEAN and value in ("t", "true", "f", "false", "0", "1"):
        sign = "1" if value in ("t", "true", "1") else "0"
        return Value(sign, sort, sign)
    if sort is Sort.BYTES and re.fullmatch(r"\\x([0-9a-f]{2})*", value):
        return Value("X'%s'" % value[2:], sort, value, ordered=True)
    if sort is Sort.UUID and re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
        return Value(text(value), sort, value, ordered=True)
    if sort is Sort.PADDED:
        return Value(text(value.rstrip(" ")), sort, value)
    if sort is Sort.ENUM:
        return Value(text(value), sort, value, enum=type_name)
    if sort is Sort.TEXT and not modified:
        return Value(text(value), sort, value)
    raise Untranslatable("its constant of type %s is not known to mean the same in SQLite" % type_name)
