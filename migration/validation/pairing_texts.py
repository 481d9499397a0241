"""Texts that are equal if a cell and a record's value, or two records' values, are equal.

``pairing`` pairs rows and records of no common order by them; ``equality`` then compares the pairs.
"""

from __future__ import annotations

import json
import math
from typing import Any, Callable, Collection, List, Sequence, Tuple

import msgspec

from migration.conversion import BLANKS, MOMENTS, NUMERIC_AFFINITIES, STRUCTURED, affinity, is_number
from migration.model import Column, Family, Kind, assert_never
from migration.sqlite.mapping import Copied
from migration.validation.json_and_moments import (
    ISO_MOMENT,
    digits_of,
    instant,
    is_null,
    is_shallow,
    moment_parts,
    number_form,
    parsed,
    text_form,
)

Form = Callable[[Any], str]
NULL, JSON_NULL = "0", "jNone"


def forms(pairs: Sequence[Copied], json_columns: Collection[str]) -> Tuple[List[Form], List[Form]]:
    """For each pair: the text of a record's value, and the text of a cell."""
    both = [_forms(pair, pair.source.name in json_columns) for pair in pairs]
    return [of_value for of_value, _ in both], [of_cell for _, of_cell in both]


def record_forms(pairs: Sequence[Copied], then: Sequence[Column], now: Sequence[Column]) -> List[Form]:
    """For each pair: the text of a value of either set of records, as ``changed_columns`` compares them."""
    kinds, kinds_then = ({column.name: column.kind for column in columns} for columns in (now, then))
    return [
        _spoken(kinds[pair.source.name]) if kinds_then[pair.source.name] == Kind.UNDECLARED else _written
        for pair in pairs
    ]


def _forms(pair: Copied, declared_json: bool) -> Tuple[Form, Form]:
    family, target = pair.source.kind.family, affinity(pair.target.type)
    if family is Family.WHOLE:
        number = text_form if target == "TEXT" else number_form
        other = int if target == "REAL" else float
        return (
            lambda value: number(str(int(value))),
            lambda found: _other_form(found) if type(found) is other else _cell_form(found),
        )
    if family is Family.NUMBER:

        def of_number(value: Any) -> str:
            digits = digits_of(value)
            if digits == "null":
                return NULL
            return text_form(digits) if target == "TEXT" else number_form(digits)

        return of_number, _cell_form
    if family is Family.JSON or family is Family.STRUCTURE:
        never_null = family is Family.JSON and pair.source.not_null

        def of_json(value: Any) -> str:
            text = str(value, "utf-8")
            return NULL if text == "null" and not never_null else _json_form(text)

        return of_json, lambda found: _json_form(found) if type(found) is str else _other_form(found)
    if family is Family.MOMENT:
        return (
            _moment_form,
            lambda found: (
                _moment_form(found)
                if type(found) is str and ISO_MOMENT.fullmatch(found)
                else _cell_form(found)
            ),
        )
    if family is Family.BINARY and target == "BLOB":
        return lambda value: "b" + value[2:], _cell_form
    if family is Family.UNDECLARED:
        return _undeclared_forms(target, declared_json, pair.target.not_null)
    if family is Family.TEXT or family is Family.BINARY:
        return text_form, _cell_form
    assert_never(family)


def _undeclared_forms(target: str, declared_json: bool, not_null: bool) -> Tuple[Form, Form]:
    def is_json(text: str) -> bool:
        return declared_json or text[:1] in ("{", "[")

    def plain(text: str) -> str:
        blank = text.strip(BLANKS)
        return number_form(blank) if target in NUMERIC_AFFINITIES and is_number(blank) else text_form(text)

    def of_value(value: Any) -> str:
        text = str(value, "utf-8")
        if text == "null":
            return _json_form(text) if declared_json and not_null else NULL
        if declared_json or is_json(text):
            return _json_form(text)
        if text in ("true", "false"):
            text = str(int(text == "true"))
        if text[0] != '"':
            return text_form(text) if target == "TEXT" else number_form(text)
        text = json.loads(text)
        return _json_form(text) if is_json(text) else plain(text)

    def of_cell(found: Any) -> str:
        if type(found) is str:
            return _json_form(found) if is_json(found) else plain(found)
        return _cell_form(found)

    return of_value, of_cell


def _cell_form(found: Any) -> str:
    if type(found) is str:
        return text_form(found)
    if type(found) is int:
        return number_form(str(found))
    if type(found) is float and math.isfinite(found):
        return number_form(repr(found))
    return "b" + found.hex() if type(found) is bytes else _other_form(found)


def _written(value: Any) -> str:
    """The text of a value that the server wrote."""
    if is_null(value):
        return NULL
    if isinstance(value, msgspec.Raw):
        return _json_form(str(value, "utf-8"))
    return type(value).__name__ + str(value)


def _spoken(kind: str) -> Form:
    """The text of a value that another exporter or the server wrote."""

    def of_either(value: Any) -> str:
        if is_null(value):
            return NULL
        plain = value
        if isinstance(value, msgspec.Raw):
            text = str(value, "utf-8")
            plain = json.loads(text) if text[0] == '"' else text
            if kind in STRUCTURED:
                inner = _json_form(plain, True)  # of JSON that was written as text
                return inner if inner[0] == "j" else _json_form(text, True)
        plain = str(plain).lower() if isinstance(plain, bool) else str(plain)
        if kind in MOMENTS:
            return text_form(plain) if moment_parts(plain) is None else "m" + repr(instant(plain, kind))
        return (
            number_form(plain.strip(BLANKS))
            if kind in (Kind.NUMERIC, Kind.FLOAT, Kind.INTEGER)
            else text_form(plain)
        )

    return of_either


def _other_form(found: Any) -> str:
    return "x" + repr(found)


def _moment_form(text: str) -> str:
    parts = moment_parts(text)
    return text_form(text) if parts is None else "m" + repr(parts)


def _json_form(text: str, by_value: bool = False) -> str:
    if is_shallow(text):
        try:
            return "j" + repr(parsed(text, by_value))
        except (ValueError, RecursionError):
            pass
    return "J" + text
