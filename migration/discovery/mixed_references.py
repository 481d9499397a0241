"""Columns that name rows of several tables, beside another one that says of which: subject_type and subject_id."""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, Mapping, NamedTuple, Sequence, Set, Tuple

from migration.discovery.source import Source
from migration.discovery.words import IDS, listed, matched, plain, words_of
from migration.model import Column, ForeignKey, Kind
from migration.postgres.operators import are_written_alike
from migration.sql import literal, qualified, quote

_TYPES = ("type", "kind", "table", "class", "model")
# What a column is called that names a row of whatever another one says.
BARE = (
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
_MOST_NAMES = 50  # of tables, in a column that its name does not make one of types
_Named = Mapping[Tuple[str, ...], Sequence[str]]


class Candidate(NamedTuple):
    """A reference that a name suggests. ``when``: as of ``Link``; ``doubt``: as of ``Guess``."""

    key: ForeignKey
    why: str
    when: str = ""
    doubt: str = ""


class _Type(NamedTuple):
    """A value of a type column: as SQL, in words, and the tables that it may mean, by their words."""

    value: str
    shown: str
    means: Tuple[Tuple[str, ...], ...]


class _Pair(NamedTuple):
    """A column that says of which table, and one that says which row. ``sure``: their names say so."""

    type_: Column
    id_: Column
    types: Sequence[_Type]
    sure: bool


class MixedReferences:
    """Finds them in all tables. ``covered``: columns that refer to one table. ``named``: tables by their words.

    ``unmeant``: table → column → a line, of each pair of which not all is known. ``doubts``: a line for each column that may refer to
    more than one table.
    """

    def __init__(self, source: Source, covered: Set[Tuple[str, str]], named: _Named) -> None:
        self.source = source
        self.covered = covered
        self.named = named
        self.unmeant: Dict[str, Dict[str, str]] = {}
        self.doubts: Dict[Tuple[str, str], str] = {}
        keys = (key for key in source.catalog.foreign_keys if len(key.columns) == 1)
        self.keys = {(key.table, key.columns[0]): key for key in keys}

    def all(self) -> Iterator[Candidate]:
        """A reference for each table that such a column names. A query a pair."""
        for table in self.source.readable:
            pairs = list(self._by_names(table))
            pairs += self._by_values(table, {pair.id_.name for pair in pairs})
            for pair in pairs:
                yield from self._of(table, pair)

    def _of(self, table: str, pair: _Pair) -> List[Candidate]:
        found, unknown = self._candidates(table, pair)
        guessed = self._called(table, pair.id_)
        if (
            not pair.sure
            and guessed
            and not (guessed <= {one.key.parent for one in found} and len(found) > 1)
        ):
            found = []  # the column's own name says something else
        if not found and (pair.sure or guessed):
            self.doubts[table, pair.id_.name] = (
                "%s may say that it names rows of other tables" % pair.type_.name
            )
        if pair.sure and (unknown or not found):
            what = (
                "the table is empty"
                if table in self.source.empty or not pair.types
                else "no table is called %s" % listed(list(dict.fromkeys(unknown))[:5], "or")
                if len(pair.types) <= _MOST_TYPES
                else "it has more than %d values" % _MOST_TYPES
            )
            self.unmeant.setdefault(table, {})[pair.id_.name] = (
                "%s says of which table %s names a row, and %s" % (pair.type_.name, pair.id_.name, what)
            )
        return found

    def _ids(self, table: str) -> Tuple[Dict[Tuple[str, ...], Column], Dict[Tuple[str, ...], Column]]:
        """Columns that may hold keys, by their words, and those of which the last word says so, by the words before it."""
        ids = {
            tuple(words_of(column.name)): column
            for column in self.source.catalog.columns.get(table, ())
            if (table, column.name) not in self.covered
            and column.kind in (Kind.INTEGER, Kind.UUID, Kind.TEXT)
        }
        keyed = {
            words[:-1]: column for words, column in ids.items() if len(words) > 1 and IDS.fullmatch(words[-1])
        }
        return ids, keyed

    def _by_names(self, table: str) -> Iterator[_Pair]:
        ids, keyed = self._ids(table)
        for column in self.source.catalog.columns.get(table, ()):
            words = tuple(words_of(column.name))
            key = self.keys.get((table, column.name))
            is_type = column.kind is Kind.TEXT or (column.kind is Kind.INTEGER and key is None)
            if key is not None and self.source.catalog.has(key.parent, ("app_label", "model")):
                id_ = keyed.get((*words[:-3], "object")) if words[-3:-1] == ("content", "type") else None
                if id_ is not None:
                    yield _Pair(column, id_, self._content_types(table, column, key), True)
            elif words and words[-1] in _TYPES and is_type and len(words) > 1:
                id_ = keyed.get(words[:-1]) or ids.get(words[:-1])
                if id_ is not None:
                    is_key = words_of(id_.name)[-1] not in ("key", words[-2])
                    sure = is_key or id_.kind is not Kind.TEXT
                    yield _Pair(column, id_, self._types(table, column), sure)

    def _by_values(self, table: str, paired: Set[str]) -> Iterator[_Pair]:
        """Columns whose values are names of tables, be it in a table to which they refer, beside one that may hold keys."""
        ids, keyed = self._ids(table)
        bare = [ids[(name,)] for name in BARE if (name,) in ids]
        loose = [*keyed.values(), *(column for column in bare if column.kind is not Kind.TEXT)]
        own = self.source.single_key(table)
        loose = [column for column in loose if column != own and column.name not in paired]
        if not loose or table in self.source.empty:
            return
        for column in self.source.catalog.columns.get(table, ()):
            key = self.keys.get((table, column.name))
            if column.kind is Kind.BOOLEAN:
                words = words_of(column.name)
                if (
                    len(words) > 1
                    and words[0] in ("is", "for", "on")
                    and self.named.get(matched("_".join(words[1:])))
                ):
                    doubt = "%s may say that it names rows of other tables" % column.name
                    self.doubts.update({(table, id_.name): doubt for id_ in loose})
            if column in loose or (key is None and column.kind is not Kind.TEXT):
                continue
            for types in (
                self._looked_up(table, column, key) if key is not None else [self._types(table, column)]
            ):
                named = [type_ for type_ in types if any(self._meant(table, type_))]
                if len(types) <= _MOST_NAMES and 0 < len(types) <= 2 * len(named):
                    alike = keyed.get(tuple(words_of(column.name)[:-1]))
                    neutral = [id_ for id_ in loose if not self._called(table, id_)]
                    for id_ in [alike] if alike in loose and alike is not None else neutral or loose:
                        yield _Pair(column, id_, types, False)

    def _called(self, table: str, column: Column) -> Set[str]:
        """Tables after which a column is called."""
        words = words_of(column.name)[:-1]
        found = (self.named.get((*words[start:-1], plain(words[-1])), ()) for start in range(len(words)))
        return {name for names in found for name in nearest(self.source, table, names)}

    def _types(self, table: str, column: Column) -> List[_Type]:
        """The different types in a table's rows, at most one more than are looked at."""
        if table in self.source.empty:
            return []
        sql = "SELECT {0}::text FROM {1} t WHERE {0} IS NOT NULL GROUP BY 1 ORDER BY 1 LIMIT {2}"
        name = qualified("t", column.name)
        return [
            _Type(_plain_literal(value), value, _meanings(value))
            for (value,) in self.source.db.rows(
                sql.format(name, self.source.db.quoted(table), _MOST_TYPES + 1)
            )
        ]

    def _content_types(self, table: str, column: Column, key: ForeignKey) -> List[_Type]:
        """Those of Django."""
        return [
            _Type(number, "%s.%s" % (app, model), (matched("%s_%s" % (app, model)), matched(model)))
            for number, app, model in self._rows_of(table, column, key, ["app_label", "model"])
        ]

    def _looked_up(self, table: str, column: Column, key: ForeignKey) -> Iterator[List[_Type]]:
        """Types that stand in a table of their own, by each text column of it."""
        for text in self.source.catalog.columns.get(key.parent, ()):
            if text.kind is Kind.TEXT and text.name not in key.parent_columns:
                yield [
                    _Type(number, value, _meanings(value))
                    for number, value in self._rows_of(table, column, key, [text.name])
                    if value is not None
                ]

    def _rows_of(
        self, table: str, column: Column, key: ForeignKey, columns: Sequence[str]
    ) -> List[Tuple[str, ...]]:
        """Rows that the table refers to: the key, as SQL, and columns as text."""
        if table in self.source.empty or key.parent in self.source.catalog.unreadable:
            return []
        theirs = quote(key.parent_columns[0])
        sql = "SELECT c.%s::text, %s FROM %s c WHERE c.%s IN (SELECT %s FROM %s t) ORDER BY 1 LIMIT %d" % (
            theirs,
            ", ".join("c.%s::text" % quote(name) for name in columns),
            self.source.db.quoted(key.parent),
            theirs,
            qualified("t", column.name),
            self.source.db.quoted(table),
            _MOST_TYPES + 1,
        )
        is_number = column.kind is Kind.INTEGER
        return [
            (number if is_number else _plain_literal(number), *rest)
            for number, *rest in self.source.db.rows(sql)
        ]

    def _candidates(self, table: str, pair: _Pair) -> Tuple[List[Candidate], List[str]]:
        """References to the tables that the types mean, and the types that mean none."""
        source = self.source
        found: Dict[Tuple[str, Column], List[str]] = {}
        unknown = []
        for type_ in pair.types if len(pair.types) <= _MOST_TYPES else ():
            for parent in self._meant(table, type_):
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
            when = (
                "%s = %s" % (name, given[0]) if len(given) == 1 else "%s IN (%s)" % (name, ", ".join(given))
            )
            reference = source.reference(table, pair.id_.name, parent, key.name)
            made.append(Candidate(reference, "by the names in %s" % pair.type_.name, when))
        return made, unknown

    def _meant(self, table: str, type_: _Type) -> Iterator[str]:
        """The tables that a type may mean, the likeliest first; written in one word, too, as Django does."""
        if type_.shown in self.source.tables:
            yield type_.shown
        usual, dot, name = type_.shown.partition(".")
        if dot and usual == self.source.db.schema and name in self.source.tables:
            yield name
        for words in type_.means:
            tables = nearest(self.source, table, self.named.get(words, ()))
            yield from tables if len(tables) == 1 else ()
        for words in type_.means:
            for stem_, called in self.named.items():
                if len(stem_) > 1 and "".join(stem_) == "".join(words):
                    near = nearest(self.source, table, called)
                    yield from near if len(near) == 1 else ()


def nearest(source: Source, table: str, tables: Sequence[str]) -> Sequence[str]:
    """Of tables of the same name those of a table's own schema, if there are any."""
    schema = source.catalog.relations[table].schema
    return [name for name in tables if source.catalog.relations[name].schema == schema] or tables


def _meanings(value: str) -> Tuple[Tuple[str, ...], ...]:
    """What a type may mean: Billing::Account a billing_account rather than an account."""
    parts = re.split(r"[\\/.:]+", value)
    return tuple(matched("_".join(parts[start:])) for start in range(len(parts)))


def _plain_literal(value: str) -> str:
    return literal(value).strip() if "\\" in value else "'%s'" % value.replace("'", "''")
