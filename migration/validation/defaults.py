"""The defaults of the SQLite schema: one value for a column, or values of one form. SQLite evaluates them."""

from __future__ import annotations

import functools
import re
import sqlite3
import string
from datetime import date
from typing import Any, Mapping, NamedTuple, Optional, Pattern, Sequence, Tuple

from migration.sql import quote
from migration.sqlite.schema import Schema, TargetColumn, in_memory

ROWS = 32  # rows to evaluate; with fewer, random hex ids could happen to contain only decimal digits
Row = Tuple[Any, ...]


class Default(NamedTuple):
    """A column's default.

    ``value``: the same in each row if it is ``constant``, else one of many. ``form``: of all of them, if they are
    text of one form. ``moment``: whether they are dates, times or both.
    """

    value: Any
    constant: bool
    form: Optional[Pattern[str]] = None
    moment: bool = False

    def is_met(self, value: Any) -> bool:
        if self.constant:
            return type(value) is type(self.value) and bool(value == self.value)
        if isinstance(self.value, (int, float)):
            return isinstance(value, (int, float))
        if type(value) is not type(self.value):
            return False
        return (self.form is None or self.form.fullmatch(value) is not None) and (
            not self.moment or is_moment(value)
        )

    def is_malformed(self, value: Any) -> bool:
        """Whether a value cannot have been meant for this column: no date in a column of dates, say."""
        if isinstance(value, str) and _MOMENT.fullmatch(value) and not is_moment(value):
            return True  # whatever the schema file says
        if value is None or self.is_met(value):
            return False
        if self.value is None and isinstance(value, (int, float)):  # seconds or days since a beginning
            return False
        return not is_moment(value) if self.moment else not self.constant


@functools.lru_cache(maxsize=1024)
def of_rows(schema: Schema, table: str, names: Tuple[str, ...]) -> Mapping[str, Default]:
    """Column → its default, evaluated. Raises sqlite3.Error if SQLite cannot evaluate one."""
    columns = [schema.columns[table][name.lower()] for name in names]
    with in_memory(schema.script) as database:
        constant = [_is_constant(database, column.default) for column in columns]
        _lift_rules(database)
        given = [column for column in schema.columns[table].values() if column not in columns]
        rows = [_inserted(database, table, given, names) for _ in range(1 if all(constant) else ROWS)]
    return {
        column.name: _told_by(values, is_constant, column.type)
        for column, is_constant, values in zip(columns, constant, zip(*rows))
    }


@functools.lru_cache(maxsize=1024)
def of_row_1(schema: Schema, table: str, names: Tuple[str, ...]) -> Mapping[str, Default]:
    """The same of row 1, which the schema file may make with values of its own."""
    found = dict(of_rows(schema, table, names))
    made = _row_1(schema, table, names)
    own = [name for name, value in zip(names, made or ()) if not found[name].is_met(value)]
    again = [_row_1(schema, table, names) for _ in range(3 if own else 0)]
    for name, values in zip(names, zip(*(row for row in (made, *again) if row is not None))):
        if name in own:
            constant = len(set(values)) == 1 and not is_moment(values[0])
            found[name] = _told_by(values, constant, schema.columns[table][name.lower()].type)
    return found


def _row_1(schema: Schema, table: str, names: Sequence[str]) -> Optional[Row]:
    with in_memory(schema.script) as database:
        return _read(database, table, names, "id = 1")


def _read(database: sqlite3.Connection, table: str, names: Sequence[str], condition: str) -> Optional[Row]:
    listed = ", ".join(map(quote, names))
    found = database.execute("SELECT %s FROM %s WHERE %s" % (listed, quote(table), condition)).fetchone()
    return None if found is None else tuple(found)


def _lift_rules(database: sqlite3.Connection) -> None:
    """Drop rules and triggers, so that a row of defaults alone can be inserted and stays as it is."""
    database.execute("PRAGMA foreign_keys = OFF")
    database.execute("PRAGMA ignore_check_constraints = ON")
    found = database.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
    ).fetchall()
    for kind, name in found:
        database.execute("DROP %s %s" % (kind, quote(name)))


def _inserted(
    database: sqlite3.Connection, table: str, given: Sequence[TargetColumn], names: Sequence[str]
) -> Row:
    """The values of ``names`` in a row that is given values for the other columns only."""
    database.execute("DELETE FROM " + quote(table))
    listed, places = ", ".join(quote(column.name) for column in given), ", ".join("?" * len(given))
    database.execute(
        "INSERT INTO {} ({}) VALUES ({})".format(quote(table), listed, places)
        if given
        else "INSERT INTO %s DEFAULT VALUES" % quote(table),
        [_anything(column.type) if column.not_null or column.key else None for column in given],
    )
    row = _read(database, table, names, "1")
    assert row is not None
    return row


def _anything(kind: str) -> object:
    """A value that a STRICT table takes as well."""
    return {"INT": 0, "INTEGER": 0, "REAL": 0.0, "BLOB": b""}.get(kind.upper(), "")


def _is_constant(database: sqlite3.Connection, default: Optional[str]) -> bool:
    """Whether the default is the same whenever it is evaluated: SQLite indexes nothing else."""
    outside = re.sub("'[^']*'|\"[^\"]*\"", "", default or "")
    if re.search(r"\bCURRENT_(TIME|DATE|TIMESTAMP)\b", outside, re.IGNORECASE):
        return False
    if "(" not in outside:
        return True
    database.execute("CREATE TABLE temp.probe (x)")
    try:
        database.execute("INSERT INTO probe VALUES (1)")
        database.execute("CREATE INDEX temp.is_constant ON probe ((%s))" % default)
    except sqlite3.Error:
        return False
    else:
        return True
    finally:
        database.execute("DROP TABLE temp.probe")


# Forms

_DATE = r"(\d{4}-\d\d-\d\d)"
_TIME = r"([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d+)?)?"
_ZONE = r"(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?"
_MOMENT = re.compile("(?:{0}|{1}|{0}[T ]{1}{2})".format(_DATE, _TIME, _ZONE), re.ASCII)


def is_moment(value: object) -> bool:
    """Whether it is a date, a time, or both as ISO 8601 or SQLite writes them, and in the calendar."""
    if not isinstance(value, str) or _MOMENT.fullmatch(value) is None:
        return False
    if value[2:3] == ":":
        return True
    try:
        date(*map(int, value[:10].split("-")))
    except ValueError:
        return False
    return True


def _told_by(values: Sequence[Any], constant: bool, kind: str) -> Default:
    value = values[0]
    if constant:
        declared = value is None and kind.upper().startswith(("DATE", "TIME"))
        return Default(
            value,
            True,
            None,
            declared
            or (isinstance(value, str) and _MOMENT.fullmatch(value) is not None and value[2:3] != ":"),
        )
    if not all(isinstance(value, str) for value in values):
        return Default(value, False)
    moment = all(map(is_moment, values))
    return Default(value, False, _form(values, moment), moment)


def _form(values: Sequence[str], moment: bool) -> Optional[Pattern[str]]:
    """Digits and letters of one sort at the same places, if they are; the other characters are themselves."""
    sorts = {"0-9": string.digits, "0-9a-f": "0123456789abcdef", "0-9A-F": "0123456789ABCDEF"}
    varied = string.digits + ("" if moment else string.ascii_letters)
    used = set("".join(values))
    sort = next((sort for sort, of in sorts.items() if used & set(varied) <= set(of)), "0-9A-Za-z")
    if used and used <= set(string.digits):
        return re.compile("[0-9]+")
    shapes = {
        "".join("[%s]" % sort if character in varied else re.escape(character) for character in value)
        for value in values
    }
    return re.compile(shapes.pop(), re.DOTALL) if len(shapes) == 1 else None
