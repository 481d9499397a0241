"""JSON, dates, times and numbers compared as texts: PostgreSQL's, SQLite's and those of any other exporter."""

from __future__ import annotations

import decimal
import functools
import json
import re
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, List, Optional, Tuple

import msgspec

from migration.conversion import is_number
from migration.model import Kind
from migration.validation.walking import Row


def is_null(value: Any) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


def same_number(one: str, other: str) -> bool:
    try:
        return is_number(one) and is_number(other) and Decimal(one) == Decimal(other)
    except InvalidOperation:
        return False


def same_json(text: str, found: Any) -> bool:
    """Whether it is the same text or the same JSON: the order of keys does not count, every digit does."""
    if type(found) is not str:
        return False
    if text == found:
        return True
    try:
        return bool(parsed(text) == parsed(found))
    except (ValueError, RecursionError):
        return False


def parsed(text: str, by_value: bool = False) -> Any:
    return _json_decoder(by_value).decode(text)


@functools.lru_cache(maxsize=None)
def _json_decoder(by_value: bool) -> json.JSONDecoder:
    """``by_value``: as a reader of JSON takes it: numbers by value, and the last of repeated keys."""
    number = number_form if by_value else str

    def members(pairs: List[Tuple[str, Any]]) -> Any:
        kept = dict(pairs).items() if by_value else pairs
        return ("object", sorted(kept, key=lambda pair: str(pair[0])))

    return json.JSONDecoder(
        parse_float=lambda digits: ("number", number(digits)),
        parse_int=lambda digits: ("number", number(digits)),
        parse_constant=lambda name: ("constant", name),
        object_pairs_hook=members,
    )


def same_by_value(text: str, now: str) -> bool:
    try:
        return bool(parsed(text, True) == parsed(now, True))
    except (ValueError, RecursionError):
        return text == now


# Year, month and day, clock, fraction, zone, era: as PostgreSQL and ISO 8601 write them
_ANY_MOMENT = re.compile(
    r"(?:([+-]?\d{4,})-(\d\d-\d\d)(?:[T ](?=\d)|$|(?= BC)))?"
    r"(\d\d:\d\d:\d\d)?(?:\.(\d+))?([+-]\d\d(?::\d\d)*|Z)?( BC)?",
    re.ASCII,
)
# As SQLite is to hold them
ISO_MOMENT = re.compile(
    r"(?:(?:\d{4}|-\d{4,}|\+\d{5,})-\d\d-\d\d(?:T(?=\d)|$))?"
    r"(?:\d\d:\d\d:\d\d(?:\.\d{6})?(?:[+-]\d\d:\d\d(?::\d\d)?)?)?",
    re.ASCII,
)


def same_moment(value: Any, found: Any) -> bool:
    if type(found) is not str:
        return False
    if len(found) == 26 and 20 < len(value) < 26 and value[19] == "." and found == value.ljust(26, "0"):
        return True  # PostgreSQL leaves the last zeros of a fraction out
    if value.endswith("infinity"):
        return bool(value == found)
    return ISO_MOMENT.fullmatch(found) is not None and (
        value == found or moment_parts(value) == moment_parts(found)
    )


def moment_parts(text: str) -> Optional[Row]:
    found = _ANY_MOMENT.fullmatch(text)
    if not found:
        return None
    year, day, clock, fraction, zone, era = found.groups()
    counted = None if year is None else 1 - int(year) if era else int(year)
    offset = "+00:00" if zone == "Z" else zone + ":00" if zone and len(zone) == 3 else zone
    return (counted, day, clock, (fraction or "").rstrip("0"), offset)


def instant(text: str, kind: str) -> Any:
    """The parts of a moment; those of a timestamptz in UTC, whichever zone another exporter's session had."""
    parts = moment_parts(text)
    if kind != Kind.TIMESTAMPTZ or parts is None or None in parts[:3] or not 1 < parts[0] < 9999:
        return parts
    year, day, clock, fraction, offset = parts
    try:
        local = datetime.strptime("%04d-%s %s" % (year, day, clock), "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return parts
    hours, minutes, seconds = (int(part) for part in ((offset or "+0")[1:] + ":0:0").split(":")[:3])
    east = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return local + east if offset and offset[0] == "-" else local - east, fraction


def digits_of(value: Any) -> str:
    return str(value, "utf-8").strip('"') if isinstance(value, msgspec.Raw) else str(value)


def text_form(text: str) -> str:
    return "t" + text


def number_form(digits: str) -> str:
    if not is_number(digits):
        return text_form(digits)
    try:
        number = Decimal(digits).normalize(EXACT)
    except InvalidOperation:
        return text_form(digits)
    return "n%s" % number if number else "n0"


EXACT = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
_SHALLOW = 100  # levels of JSON that Python is sure to read
_BRACKET_OR_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)


def is_shallow(text: str) -> bool:
    if text.count("[") + text.count("{") <= _SHALLOW:
        return True
    depth = 0
    for found in _BRACKET_OR_STRING.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > _SHALLOW:
            return False
    return True
