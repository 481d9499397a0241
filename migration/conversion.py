"""The type contract: what a value is in PostgreSQL, in the bundle's JSON, and in SQLite.

A value reaches SQLite exactly, or its conversion raises ``Unrepresentable`` and nothing is imported.
``schema_design/migration_mapping.md`` is this module in prose.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Callable, List, Optional, Union

import msgspec

from migration.model import Column, Family, Kind, assert_never

SqliteValue = Union[None, int, float, str, bytes]
Converter = Callable[[Any], SqliteValue]

STRUCTURED = (Kind.JSON, Kind.JSONB, Kind.STRUCTURE)
NUMERIC_AFFINITIES = ("INTEGER", "REAL", "NUMERIC")
NOT_FINITE = ("NaN", "Infinity", "-Infinity")


class Unrepresentable(ValueError):
    """A value that SQLite would change, or that is not of its column's type. Says which rule, not the value."""


def affinity(declared_type: str) -> str:
    """SQLite's affinity of a declared column type. Source: https://www.sqlite.org/datatype3.html#determination_of_column_affinity"""
    shown = declared_type.upper()
    if "INT" in shown:
        return "INTEGER"
    if "CHAR" in shown or "CLOB" in shown or "TEXT" in shown:
        return "TEXT"
    if "BLOB" in shown or not shown:
        return "BLOB"
    if "REAL" in shown or "FLOA" in shown or "DOUB" in shown:
        return "REAL"
    return "NUMERIC"


# Dates and times. Everything is what Python's isoformat() writes, but for what it cannot say:
# years are astronomical (1 BC is 0000, 2 BC -0001; beyond 9999 a plus sign, as ISO 8601 has it),
# infinity and 24:00:00 stay as they are.

_DATE, _CLOCK = "[0-9]{4}-[0-9][0-9]-[0-9][0-9]", r"[0-9][0-9]:[0-9][0-9]:[0-9][0-9](?:\.[0-9]{6})?"
_PLAIN = {  # what needs no conversion
    Kind.DATE: _DATE,
    Kind.TIME: "(?!24)" + _CLOCK,
    Kind.TIMETZ: "(?!24)" + _CLOCK + "[+-][0-9][0-9]:[0-9][0-9]",
    Kind.TIMESTAMP: _DATE + "T" + _CLOCK,
    Kind.TIMESTAMPTZ: _DATE + "T" + _CLOCK + r"\+00:00",
}
MOMENTS = tuple(_PLAIN)
_MOMENT = re.compile(
    r"(?:(?P<year>\d{4,})-(?P<day>\d\d-\d\d))?(?P<between>[T ])?"
    r"(?:(?P<clock>\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d{1,6}))?(?P<zone>[+-]\d\d(?::?\d\d)?(?::\d\d)?|Z)?)?"
    r"(?P<bc> BC)?",
    re.ASCII,
)
_PARTS = {  # what each kind must and must not have: date, clock, zone
    Kind.DATE: (True, False, False),
    Kind.TIME: (False, True, False),
    Kind.TIMETZ: (False, True, True),
    Kind.TIMESTAMP: (True, True, False),
    Kind.TIMESTAMPTZ: (True, True, True),
}


def moment(kind: Kind) -> Converter:
    """Converter of a date or time of ``kind`` from ISO text as PostgreSQL renders it."""
    plain, parts = re.compile(_PLAIN[kind]).fullmatch, _PARTS[kind]

    def convert(text: str) -> str:
        if plain(text):
            return text
        if text in ("infinity", "-infinity") and parts[0]:
            return text
        found = _MOMENT.fullmatch(text)
        has = found and (found["year"] is not None, found["clock"] is not None, found["zone"] is not None)
        if not found or has != parts or (found["between"] is not None) != (parts[0] and parts[1]):
            raise Unrepresentable("not a " + kind)
        date = _year(found["year"], found["bc"] is not None) + "-" + found["day"] if parts[0] else ""
        clock = found["clock"] or ""
        if found["fraction"] and int(found["fraction"]):
            clock += "." + found["fraction"].ljust(6, "0")
        return date + ("T" if parts[0] and parts[1] else "") + clock + _offset(found["zone"])

    return convert


def _year(digits: str, before_christ: bool) -> str:
    year = 1 - int(digits) if before_christ else int(digits)
    if year > 9999:
        return "+%d" % year
    return "%05d" % year if year < 0 else "%04d" % year


def _offset(zone: Optional[str]) -> str:
    if zone is None:
        return ""
    if zone == "Z":
        return "+00:00"
    digits = zone[1:].replace(":", "")
    return zone[0] + digits[:2] + ":" + (digits[2:4] or "00") + (":" + digits[4:] if digits[4:] else "")


# Numbers


def _exact_float(digits: str) -> float:
    """The double whose shortest decimal form is this number, or Unrepresentable."""
    value = float(digits)
    if value in (float("inf"), float("-inf")) or Decimal(repr(value)) != _decimal(digits):
        raise Unrepresentable("a double cannot hold its digits; declare the SQLite column TEXT to keep them")
    return value


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise Unrepresentable("its exponent is beyond all numbers") from None


_DIGITS = "-0123456789"  # what a JSON number begins with
_SURE = 16  # characters with a point: every decimal of 15 digits comes back from its double as it was


def _is_short(digits: str) -> bool:
    """Whether a number without exponent has so few digits that a double surely holds them."""
    return len(digits) < _SURE or (len(digits) == _SURE and "." in digits)


def _numeric(target: str) -> Converter:
    real = target == "REAL"

    def convert(raw: msgspec.Raw) -> SqliteValue:
        digits = str(raw, "utf-8")
        if real and _is_short(digits) and digits[0] in _DIGITS and "e" not in digits and "E" not in digits:
            return float(digits)
        if digits == "null":
            return None
        if digits.startswith('"'):
            digits = digits[1:-1]
            if digits in NOT_FINITE:
                return digits
        if not is_number(digits):
            raise Unrepresentable("not a number")
        if target == "TEXT":
            return digits
        if target in ("INTEGER", "NUMERIC"):
            number = _decimal(digits)
            if number == number.to_integral_value() and -(2**63) <= number < 2**63:
                return int(number)
        return _exact_float(digits)

    return convert


def _float(target: str) -> Converter:
    def convert(value: Union[float, str]) -> SqliteValue:
        if isinstance(value, str):
            if value not in NOT_FINITE:
                raise Unrepresentable("not a number")
            return value
        return repr(value) if target == "TEXT" else value

    return convert


def _integer_as_real(value: int) -> int:
    if int(float(value)) != value:
        raise Unrepresentable("a double cannot hold its digits; declare the SQLite column INTEGER")
    return value


# Text and JSON

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


BLANKS = " \t\n\v\f\r"  # what SQLite passes over around a number in a text


def is_number(text: str) -> bool:
    """Whether SQLite reads all of a text as a number; Python reads more: other scripts' digits, blanks, underscores."""
    return _NUMBER.fullmatch(text) is not None


def _text_in_numeric_column(value: str) -> str:
    """Text that reads as a number would become one: '007' → 7."""
    if is_number(value.strip(BLANKS)):
        raise Unrepresentable("the SQLite column turns text that reads as a number into one; declare it TEXT")
    return value


def _json_text(not_null: bool, numeric_target: bool, laid_out: Callable[[str], str]) -> Converter:
    """JSON text as PostgreSQL writes it. A null is JSON's where the source column cannot be NULL."""

    def convert(raw: msgspec.Raw) -> SqliteValue:
        text = laid_out(str(raw, "utf-8"))
        if text == "null" and not not_null:
            return None
        return _text_in_numeric_column(text) if numeric_target else text

    return convert


# The layout of JSON text: bundles that PostgreSQL did not write have line ends, other blanks, or none


def _as_jsonb(text: str) -> str:
    """One blank behind each comma and colon, as jsonb is written."""
    if _JSONB_BEGINS.match(text) and not _LINE_END.search(text):
        return text
    return _laid_out(text, ", ", ": ")


# The first separator only: its layout stands for the whole text
_JSONB_BEGINS = re.compile(
    r'[\[{]*(?:"[^"\\]*(?:\\.[^"\\]*)*"|[^"\[\]{},:\s]*)(?:[,:] (?! )|[\]}]|\Z)', re.DOTALL
)
_LINE_END = re.compile("[\n\r\t]")


def _as_structure(text: str) -> str:
    """No blanks, as row_to_json writes arrays and composites."""
    return _laid_out(text, ",", ":") if _LINE_END.search(text) else text


def _as_json(text: str) -> str:
    """As it was written, but on one line: the export makes a blank of a line end."""
    return text.replace("\n", " ").replace("\r", " ")


def _as_jsonb_unescaped(text: str) -> str:
    """The same of JSON that another program wrote: it may have escaped what is not ASCII."""
    if "\\" not in text:
        return _as_jsonb(text)
    return _laid_out(text, ", ", ": ", _unescaped)


_STRING = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)


def _laid_out(text: str, comma: str, colon: str, string: Callable[[str], str] = str) -> str:
    """JSON text with these separators and no other white space between its tokens; digits and order stay."""
    parts: List[str] = _STRING.split(text)
    parts[::2] = ["".join(part.split()).replace(",", comma).replace(":", colon) for part in parts[::2]]
    parts[1::2] = map(string, parts[1::2])
    return "".join(parts)


def _unescaped(string: str) -> str:
    if "\\" not in string:
        return string
    plain = json.dumps(json.loads(string), ensure_ascii=False)
    return plain if plain.isascii() or not _HALVES.search(plain) else string


_HALVES = re.compile("[\ud800-\udfff]")  # of a pair that is not whole: no UTF-8


def _bytes(value: str) -> bytes:
    try:
        if not value.startswith("\\x"):
            raise ValueError
        return bytes.fromhex(value[2:])
    except ValueError:
        raise Unrepresentable("not bytes in hex form") from None


def _undeclared(not_null: bool, json_declared: bool, target: str) -> Converter:
    """For bundles that do not say their column types: JSON's own types, text as it is, JSON as jsonb is written."""

    def convert(raw: msgspec.Raw) -> SqliteValue:
        text = str(raw, "utf-8")
        if text == "null":
            return "null" if json_declared and not_null else None
        if json_declared or text[0] in "{[":
            return _as_jsonb_unescaped(text)
        if text in ("true", "false"):
            return int(text == "true")
        if text[0] == '"':
            return str(msgspec.json.decode(text.encode()))
        return _numeric(target)(raw)

    return convert


# Which conversion a column needs


def converter(
    column: Column, declared_type: str, json_declared: bool, target_not_null: bool
) -> Optional[Converter]:
    """From a decoded value (never None) to what SQLite is given; None where they are the same."""
    target = affinity(declared_type)
    numeric_target = target in NUMERIC_AFFINITIES
    kind = column.kind
    family, text = kind.family, _text_in_numeric_column if numeric_target else None
    if family is Family.WHOLE:
        return _integer_as_real if kind is Kind.INTEGER and target == "REAL" else None
    if family is Family.NUMBER:
        return _numeric(target) if kind is Kind.NUMERIC else _float(target)
    if family is Family.JSON:
        return _json_text(column.not_null, numeric_target, _as_jsonb if kind is Kind.JSONB else _as_json)
    if family is Family.STRUCTURE:
        return _json_text(False, numeric_target, _as_structure)
    if family is Family.MOMENT:
        return moment(kind)
    if family is Family.UNDECLARED:
        return _undeclared(target_not_null, json_declared, target)
    if family is Family.BINARY:
        return _bytes if target == "BLOB" else text
    if family is Family.TEXT:
        return text
    assert_never(family)
