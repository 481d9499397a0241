"""Compare a cell of SQLite with its record's value, kind by kind.

The comparison follows the type contract and shares no code with the import's conversion.
"""

from __future__ import annotations

import json
import math
import operator
from typing import Any, Callable, Collection, Iterator, Sequence, Tuple

import msgspec

from migration.conversion import BLANKS, affinity
from migration.model import Column, Family, assert_never
from migration.sqlite.mapping import Copied, TableMapping
from migration.validation.json_and_moments import same_json, same_moment, same_number
from migration.validation.walking import Describe, Row

Same = Callable[[Any, Any], bool]


class Cells:
    """The comparison of one table's records with its rows. ``pairs``: its columns, in the order of ``take``."""

    def __init__(
        self, mapped: TableMapping, columns: Sequence[Column], json_columns: Collection[str] = ()
    ) -> None:
        self.pairs = mapped.copied
        self.take = fields(self.pairs, columns)
        self._tests = [_test(pair, pair.source.name in json_columns) for pair in self.pairs]

    def unequal(self, record: Any, values: Row, row: Row, describe: Describe) -> Iterator[Tuple[str, str]]:
        """Column and message of each cell that differs from the record."""
        nulls = record.json_nulls
        for pair, same, value, found in zip(self.pairs, self._tests, values, row):
            if nulls and pair.source.name in nulls:
                equal = found == "null"
            elif value is None:
                equal = found is None
            else:
                equal = same(value, found)
            if not equal:
                yield pair.target.name, "should be %s, is %s" % (describe(value), describe(found))


def _tuple_getter(getter: Callable[..., Any], names: Sequence[Any]) -> Callable[[Any], Any]:
    """One of ``operator``'s getters that gives a tuple for a single name too."""
    get = getter(*names)
    return get if len(names) > 1 else lambda item: (get(item),)


def fields(pairs: Sequence[Copied], columns: Sequence[Column]) -> Callable[[Any], Row]:
    """A function that takes the values of ``pairs`` from a record decoded by ``columns``."""
    names = [column.name for column in columns]
    return _tuple_getter(operator.attrgetter, ["c%d" % names.index(pair.source.name) for pair in pairs])


def _test(pair: Copied, declared_json: bool) -> Same:
    family, target = pair.source.kind.family, affinity(pair.target.type)
    if family is Family.WHOLE:
        return _same_as_text if target == "TEXT" else _integer_test(target)
    if family is Family.NUMBER:
        return _number_test(target)
    if family is Family.STRUCTURE:
        return _same_json
    if family is Family.JSON:
        return _json_null_test if pair.source.not_null else _same_json
    if family is Family.MOMENT:
        return same_moment
    if family is Family.UNDECLARED:
        return _undeclared_test(declared_json, pair.target.not_null)
    if family is Family.BINARY and target == "BLOB":
        return lambda value, found: type(found) is bytes and value == "\\x" + found.hex()
    if family is Family.TEXT or family is Family.BINARY:
        return lambda value, found: type(found) is str and found == value
    assert_never(family)


def _integer_test(target: str) -> Same:
    wanted = float if target == "REAL" else int
    return lambda value, found: found == value and type(found) is wanted


def _same_as_text(value: Any, found: Any) -> bool:
    return type(found) is str and found == str(int(value))


def _number_test(target: str) -> Same:
    def same(value: Any, found: Any) -> bool:
        digits = str(value, "utf-8").strip('"') if isinstance(value, msgspec.Raw) else str(value)
        if digits == "null":
            return found is None
        if type(found) is float:
            whole = target in ("INTEGER", "NUMERIC") and found.is_integer() and abs(found) < 2**63
            return (
                not whole
                and math.isfinite(found)
                and (repr(found) == digits or same_number(repr(found), digits))
            )
        if type(found) is int:
            return target != "REAL" and same_number(str(found), digits)
        return type(found) is str and found == digits and (target == "TEXT" or not digits[-1:].isdigit())

    return same


def _same_json(value: Any, found: Any) -> bool:
    text = str(value, "utf-8")
    if text == "null":
        return found is None
    return same_json(text, found)


def _json_null_test(value: Any, found: Any) -> bool:
    return same_json(str(value, "utf-8"), found)


def _undeclared_test(declared_json: bool, not_null: bool) -> Same:
    """For a bundle that names no types: the JSON value decides, and what config declares to be JSON."""

    def same(value: Any, found: Any) -> bool:
        text = str(value, "utf-8")
        if text == "null":
            return bool(found == "null") if declared_json and not_null else found is None
        if declared_json or text[0] in "{[":
            return same_json(text, found)
        if text in ("true", "false"):
            return found in (int(text == "true"), str(int(text == "true")))
        plain = json.loads(text) if text[0] == '"' else text
        if type(found) is str:
            return bool(found == plain)
        return type(found) in (int, float) and same_number(repr(found), plain.strip(BLANKS))

    return same
