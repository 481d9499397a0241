"""PostgreSQL's defaults as SQLite's: constants as PostgreSQL itself evaluates them, and a few functions."""

from __future__ import annotations

import re
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import msgspec
import psycopg2
from sqlglot import exp

from migration import conversion
from migration.decoding import record_decoder
from migration.discovery.expressions import parse
from migration.discovery.sqlite_types import MOMENTS, Form, Sort
from migration.discovery.values import Untranslatable, text
from migration.model import Column, Kind
from migration.postgres import kinds
from migration.postgres.snapshot import Snapshot

_NOW = r"(?:now\(\)|(?:transaction|statement|clock)_timestamp\(\)|CURRENT_TIMESTAMP(?:\(\d\))?)"
_LOCAL = r"(?:{0}|\({0}\)::timestamp without time zone|LOCALTIMESTAMP(?:\(\d\))?)".format(_NOW)
_UTC = r"(?:\({0} AT TIME ZONE '(?i:utc)'::text\)|timezone\('(?i:utc)'::text, {0}\))".format(_NOW)
_TODAY = r"(?:CURRENT_DATE|\({0}\)::date|\('now'::text\)::date)".format(_NOW)
_RANDOM = r"(?:\w+\.)?(?:gen_random_uuid|uuid_generate_v4)\(\)"
_SECONDS = "strftime('%Y-%m-%dT%H:%M:%S{}', 'now')"
_UUID = (
    "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-'"
    " || substr('89AB', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))"
)
# Sort, the whole default, and what it becomes; a note where that is another value
_FUNCTIONS: Tuple[Tuple[Sort, str, str, Optional[str]], ...] = (
    (Sort.TIMESTAMPTZ, _NOW, _SECONDS.format("+00:00"), None),
    (Sort.TIMESTAMP, _UTC, _SECONDS.format(""), None),
    (Sort.TIMESTAMP, _LOCAL, _SECONDS.format(""), "it is the time in UTC, not that of the session's zone"),
    (
        Sort.DATE,
        _TODAY,
        "strftime('%Y-%m-%d', 'now')",
        "it is the day in UTC, not that of the session's zone",
    ),
    (Sort.UUID, _RANDOM, _UUID, None),
    (Sort.TEXT, r"\({0}\)::(?:text|character varying)".format(_RANDOM), _UUID, None),
)
_WORDS = (
    "now",
    "today",
    "tomorrow",
    "yesterday",
    "allballs",
)  # text that is another time whenever it is read


class Wanted(NamedTuple):
    """A column with a default. ``base``: its type under all domains."""

    column: Column
    form: Form
    base: str
    default: str


class Default(NamedTuple):
    """``sql``: what stands after DEFAULT; None where there is none. ``note``: what is different, or why there is none."""

    sql: Optional[str]
    note: Optional[str] = None


def defaults_of(db: Snapshot, table: str, wanted: Sequence[Wanted]) -> Dict[str, Default]:
    """The defaults of a table's columns, by name."""
    found: Dict[str, Default] = {}
    constant: List[Wanted] = []
    for one in wanted:
        plain = _plain(one)
        if plain is not None:
            found[one.column.name] = Default(plain)
        elif re.match(r"nextval\(", one.default):
            found[one.column.name] = Default(
                None, "PostgreSQL takes it from a sequence, which SQLite has none of"
            )
        elif _is_constant(one):
            constant.append(one)
        else:
            found[one.column.name] = _function(one)
    values = _evaluated(db, table, constant)
    if values is None:  # PostgreSQL cannot evaluate one of them: each by itself
        for one in constant:
            alone = _evaluated(db, table, [one])
            refused = Default(None, "PostgreSQL cannot evaluate it")
            found[one.column.name] = refused if alone is None else _literal(one, alone[0])
    else:
        found.update({one.column.name: _literal(one, value) for one, value in zip(constant, values)})
    return found


# Most constants, without asking: they stand there as the import would write them
_PLAIN = {
    Sort.INTEGER: re.compile(r"(-?\d{1,18})|'(-?\d{1,18})'::(?:smallint|integer|bigint)"),
    Sort.DECIMAL: re.compile(r"(-?\d{1,9})"),
    Sort.DOUBLE: re.compile(r"(-?\d{1,9})"),
    Sort.TEXT: re.compile(r"('[^'\\]*')::(?:text|character varying)"),
    Sort.ENUM: re.compile(r"('[^'\\]*')::[\w.]+"),
    Sort.JSONB: re.compile(r"('[^'\\]*')::jsonb"),
    Sort.BOOLEAN: re.compile("true|false"),
}


def _plain(one: Wanted) -> Optional[str]:
    pattern = _PLAIN.get(one.form.sort)
    match = None if pattern is None else pattern.fullmatch(one.default)
    if match is None:
        return None
    if one.form.sort is Sort.BOOLEAN:
        return str(int(one.default == "true"))
    return str(next(filter(None, match.groups())))


def _function(one: Wanted) -> Default:
    for sort, pattern, sql, note in _FUNCTIONS:
        if one.form.sort is sort and re.fullmatch(pattern, one.default):
            return Default("(%s)" % sql, note)
    return Default(None, "it is not known to mean the same in SQLite")


def _is_constant(one: Wanted) -> bool:
    """Whether a default is the same at all times. PostgreSQL folds no cast that depends on a setting."""
    try:
        return _constant(parse(one.default), one.form.sort)
    except Untranslatable:
        return False


def _constant(node: exp.Expression, sort: Sort) -> bool:
    if isinstance(node, exp.Literal):
        return sort not in MOMENTS or node.name.strip().lower() not in _WORDS
    if isinstance(node, (exp.ByteString, exp.BitString, exp.Null, exp.Boolean)):
        return True
    if isinstance(node, (exp.Paren, exp.Cast, exp.Neg)):
        return _constant(node.this, sort)
    if isinstance(node, exp.Array):
        return all(_constant(part, sort) for part in node.expressions)
    return False


def _evaluated(db: Snapshot, table: str, wanted: Sequence[Wanted]) -> Optional[List[msgspec.Raw]]:
    """The values as a bundle would have them; None where PostgreSQL refuses one."""
    if not wanted:
        return []
    shown = []
    for place, one in enumerate(wanted):
        value = "(%s)::%s" % (one.default, one.base)
        type_ = db.catalog.values.get(table, {}).get(one.column.name)
        if one.column.kind in (Kind.JSON, Kind.JSONB):
            value = "(%s)::pg_catalog.text" % value
        elif type_ is not None:
            value = kinds.rendered(type_.base, value)
        shown.append("%s AS c%d" % (value, place))
    with db.connection.cursor() as cursor:
        cursor.execute("SAVEPOINT defaults")
        try:
            cursor.execute(
                "SELECT pg_catalog.row_to_json(r)::pg_catalog.text FROM (SELECT %s) r" % ", ".join(shown)
            )
            ((record,),) = cursor.fetchall()
        except psycopg2.Error:
            cursor.execute("ROLLBACK TO SAVEPOINT defaults")
            return None
    values = msgspec.json.decode(record.encode("utf-8"), type=Dict[str, msgspec.Raw])
    return [values["c%d" % place] for place in range(len(wanted))]


def _literal(one: Wanted, raw: msgspec.Raw) -> Default:
    """A constant as SQL, converted as the import converts a value of its column."""
    if bytes(raw) == b"null":
        return Default(None)
    column = one.column
    if column.kind in (Kind.JSON, Kind.JSONB):
        return Default(text(msgspec.json.decode(raw, type=str).replace("\n", " ").replace("\r", " ")))
    decoded = record_decoder([Column("v", column.type, column.kind, False)])(b'{"v":' + bytes(raw) + b"}")
    convert = conversion.converter(column, one.form.declared, False, False)
    try:
        value = decoded.c0 if convert is None else convert(decoded.c0)
    except conversion.Unrepresentable as error:
        return Default(None, str(error))
    if isinstance(value, bytes):
        return Default("X'%s'" % value.hex())
    if isinstance(value, str):
        return Default(text(value))
    return Default(repr(int(value) if isinstance(value, bool) else value))
