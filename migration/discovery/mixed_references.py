"""Columns that name rows of several tables, beside another one that says of which: subject_type and subject_id."""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from migration.discovery.source import Source
from migration.discovery.words import listed, stem, words_of
from migration.model import Column, Equality, ForeignKey, Kind
from migration.postgres.operators import are_written_alike
from migration.sql import literal, qualified, quote

IDS = re.compile(r"_?(id|uuid|uid|guid|key|ref|fk|pk)$")  # a last word
_TYPES = ("type", "kind", "table", "class", "model")
# What a column is called that names a row of whatever a column "type" or "kind" says.
_BARE = (
    "ref",
    "target",
    "object",
    "entity",
    "record",
    "resource",
    "subject",
    "source",
    "foreign",
    "row",
    "item",
)
_MOST_TYPES = 500
_Named = Mapping[Tuple[str, ...], Sequence[str]]


class Candidate(NamedTuple):
    """A reference that a name suggests. ``when``: as of ``Link``; ``doubt``: as of ``Guess``."""

    key: ForeignKey
    why: str
    when: str = ""
    doubt: str = ""


class _Pair(NamedTuple):
    """``content_types``: Django's table of types, to which ``type_`` refers. ``sure``: both names say that it is a pair."""

    table: str
    type_: Column
    id_: Column
    content_types: Optional[ForeignKey]
    sure: bool


def plain_key(table: str, column: str, parent: str, key: str) -> ForeignKey:
    return ForeignKey(table, (column,), parent, (key,), (Equality("pg_catalog.="),))


def mixed_references(
    source: Source,
    covered: Set[Tuple[str, str]],
    named: _Named,
    unmeant: Dict[str, List[str]],
    doubts: Dict[Tuple[str, str], str],
) -> Iterator[Candidate]:
    """A reference for each table that such a column names. A query a pair.

    ``covered``: columns that refer to one table. ``named``: tables by their words. ``unmeant`` gets a line for each pair
    of which not all is known, ``doubts`` one for each column that is no reference to a single table.
    """
    for table in source.tables:
        if table in source.foreign or table in source.catalog.unreadable:
            continue
        for pair in _pairs(source, table, covered):
            types = _types(source, pair)
            found, unknown = _by_table(source, pair, types, named)
            yield from found
            if pair.sure and not found:
                doubts[table, pair.id_.name] = (
                    "%s may say that it names rows of other tables" % pair.type_.name
                )
            if pair.sure and (unknown or not found):
                what = (
                    "the table is empty"
                    if table in source.empty or not types
                    else "no table is called %s" % listed(list(dict.fromkeys(unknown))[:5], "or")
                    if len(types) <= _MOST_TYPES
                    else "it has more than %d values" % _MOST_TYPES
                )
                unmeant.setdefault(table, []).append(
                    "%s says of which table %s names a row, and %s" % (pair.type_.name, pair.id_.name, what)
                )


def _pairs(source: Source, table: str, covered: Set[Tuple[str, str]]) -> Iterator[_Pair]:
    columns = source.catalog.columns.get(table, ())
    ids = {tuple(words_of(column.name)): column for column in columns if (table, column.name) not in covered}
    ids = {
        words: column for words, column in ids.items() if column.kind in (Kind.INTEGER, Kind.UUID, Kind.TEXT)
    }
    plain = {
        words[:-1]: column for words, column in ids.items() if len(words) > 1 and IDS.fullmatch(words[-1])
    }
    references = {
        key.columns[0]: key
        for key in source.catalog.foreign_keys
        if key.table == table and len(key.columns) == 1
    }
    for column in columns:
        words = tuple(words_of(column.name))
        key = references.get(column.name)
        if key is not None and source.catalog.has(key.parent, ("app_label", "model")):
            id_ = plain.get((*words[:-3], "object")) if words[-3:-1] == ("content", "type") else None
            if id_ is not None:
                yield _Pair(table, column, id_, key, True)
        elif (
            words
            and words[-1] in _TYPES
            and (column.kind is Kind.TEXT or (column.kind is Kind.INTEGER and key is None))
        ):
            if len(words) > 1:
                id_ = plain.get(words[:-1]) or ids.get(words[:-1])
                if id_ is not None:
                    is_key = words_of(id_.name)[-1] not in ("key", words[-2])
                    yield _Pair(table, column, id_, None, is_key or id_.kind is not Kind.TEXT)
            else:
                bare = [name for name in _BARE if (name,) in plain or (name,) in ids]
                if len(bare) == 1:
                    name = (bare[0],)
                    yield _Pair(table, column, plain.get(name) or ids[name], None, False)


class _Type(NamedTuple):
    """A value of a type column: as SQL, in words, and the tables that it may mean, by their words."""

    value: str
    shown: str
    means: Tuple[Tuple[str, ...], ...]


def _types(source: Source, pair: _Pair) -> List[_Type]:
    """The different types in a table's rows, at most one more than are looked at."""
    if pair.table in source.empty:
        return []
    name, table = qualified("t", pair.type_.name), source.db.quoted(pair.table)
    if pair.content_types is not None:
        sql = "SELECT c.{0}::text, c.app_label::text, c.model::text FROM {1} c WHERE c.{0} IN (SELECT {2} FROM {3} t) ORDER BY 1 LIMIT {4}"
        key, parent = quote(pair.content_types.parent_columns[0]), source.db.quoted(pair.content_types.parent)
        return [
            _Type(key, "%s.%s" % (app, model), (stem("%s_%s" % (app, model)), stem(model)))
            for key, app, model in source.db.rows(sql.format(key, parent, name, table, _MOST_TYPES + 1))
        ]
    sql = "SELECT {0}::text FROM {1} t WHERE {0} IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT {2}"
    return [
        _Type(_plain_literal(value), value, tuple(_suffixes(re.split(r"[\\/.:]+", value))))
        for (value,) in source.db.rows(sql.format(name, table, _MOST_TYPES + 1))
    ]


def _by_table(
    source: Source, pair: _Pair, types: Sequence[_Type], named: _Named
) -> Tuple[List[Candidate], List[str]]:
    """References to the tables that the types mean, and the types that mean none."""
    found: Dict[Tuple[str, Column], List[str]] = {}
    unknown = []
    for type_ in types if len(types) <= _MOST_TYPES else ():
        for parent in _meant(source, pair.table, type_, named):
            key = source.single_key(parent)
            if key is not None and (
                are_written_alike(key, pair.id_) or Kind.TEXT in (key.kind, pair.id_.kind)
            ):
                found.setdefault((parent, key), []).append(type_.value)
                break
        else:
            unknown.append(type_.shown)
    made = []
    name = qualified("t", pair.type_.name)
    for (parent, key), given in found.items():
        when = "%s = %s" % (name, given[0]) if len(given) == 1 else "%s IN (%s)" % (name, ", ".join(given))
        reference = plain_key(pair.table, pair.id_.name, parent, key.name)
        if not are_written_alike(key, pair.id_):
            reference = reference._replace(equalities=(source.db.equality(key, pair.id_),))
        made.append(Candidate(reference, "by the names in %s" % pair.type_.name, when))
    return made, unknown


def _meant(source: Source, table: str, type_: _Type, named: _Named) -> Iterator[str]:
    """The tables that a type may mean, the likeliest first; written in one word, too, as Django does."""
    if type_.shown in source.tables:
        yield type_.shown
    usual, dot, name = type_.shown.partition(".")
    if dot and usual == source.db.schema and name in source.tables:
        yield name
    for words in type_.means:
        tables = nearest(source, table, named.get(words, ()))
        yield from tables if len(tables) == 1 else ()
    for words in type_.means:
        for stem_, tables in named.items():
            if len(stem_) > 1 and "".join(stem_) == "".join(words):
                near = nearest(source, table, tables)
                yield from near if len(near) == 1 else ()


def nearest(source: Source, table: str, tables: Sequence[str]) -> Sequence[str]:
    """Of tables of the same name those of a table's own schema, if there are any."""
    schema = source.catalog.relations[table].schema
    return [name for name in tables if source.catalog.relations[name].schema == schema] or tables


def _suffixes(parts: Sequence[str]) -> Iterator[Tuple[str, ...]]:
    """What a type may mean: Billing::Account a billing_account rather than an account."""
    for start in range(len(parts)):
        yield stem("_".join(parts[start:]))


def _plain_literal(value: str) -> str:
    return literal(value).strip() if "\\" in value else "'%s'" % value.replace("'", "''")
