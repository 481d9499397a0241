"""Compare records of the bundle with records of PostgreSQL."""

from __future__ import annotations

import json
from typing import Any, Callable, Iterable, Iterator, List, Sequence, Tuple

import msgspec

from migration.conversion import BLANKS, MOMENTS, STRUCTURED
from migration.model import Column, Kind
from migration.sqlite.mapping import TableMapping
from migration.validation.equality import Same, fields
from migration.validation.json_and_moments import (
    instant,
    is_null,
    moment_parts,
    same_by_value,
    same_json,
    same_number,
)
from migration.validation.keys import NOWHERE, is_before, key_reader, lacks_part
from migration.validation.walking import Unordered

Side = Tuple[Sequence[Column], Iterable[Any]]  # columns, and records decoded by them


def changes(key: Sequence[str], mapped: TableMapping, then: Side, now: Side) -> Iterator[Tuple[str, str]]:
    """Merge two sets of records of one table, both in key order; yields ("added" | "removed" | "changed", row).

    ``key``: its source columns. Migrated columns are compared by value: the order of JSON keys does not matter, every digit does.
    Raises Unordered.
    """
    shown, olds = _keyed(key, mapped, *then)
    _, news = _keyed(key, mapped, *now)
    changed = changed_columns(mapped, then[0], now[0])
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and is_before(old[0], new[0])):
            assert old is not None
            yield "removed", shown(old[0])
            old = next(olds, None)
        elif old is None or is_before(new[0], old[0]):
            yield "added", shown(new[0])
            new = next(news, None)
        else:
            if changed(old[1], new[1]):
                yield "changed", shown(old[0])
            old, new = next(olds, None), next(news, None)


def changed_columns(
    mapped: TableMapping, then: Sequence[Column], now: Sequence[Column]
) -> Callable[[Any, Any], List[str]]:
    """A comparison of two records, each decoded by its columns: the migrated columns in which they differ."""
    kinds, kinds_then = ({column.name: column.kind for column in columns} for columns in (now, then))
    pairs = [pair for pair in mapped.copied if pair.source.name in kinds]
    take, take_now = (fields(pairs, columns) for columns in (then, now))
    tests = [
        (name, _foreign_test(kinds[name]) if kinds_then[name] == Kind.UNDECLARED else _same_record)
        for name in (pair.source.name for pair in pairs)
    ]

    def marked_otherwise(name: str, record: Any, other: Any) -> bool:
        """Another exporter's bundle need not tell JSON's null from SQL's."""
        marked, marked_now = name in record.json_nulls, name in other.json_nulls
        return marked and not marked_now if kinds_then[name] == Kind.UNDECLARED else marked is not marked_now

    def changed(record: Any, other: Any) -> List[str]:
        return [
            name
            for (name, same), mine, theirs in zip(tests, take(record), take_now(other))
            if not same(mine, theirs) or marked_otherwise(name, record, other)
        ]

    return changed


def _keyed(
    names: Sequence[str], mapped: TableMapping, columns: Sequence[Column], records: Iterable[Any]
) -> Tuple[Callable[[Any], str], Iterator[Tuple[Any, Any]]]:
    """A function that shows a key, and each record with its key. Raises Unordered while they are read."""
    kinds = {column.name: column for column in columns}
    pairs = [pair._replace(source=kinds[pair.source.name]) for pair in mapped.copied]
    key = key_reader(names, pairs)
    take = fields(pairs, columns)

    def keyed() -> Iterator[Tuple[Any, Any]]:
        last: Any = NOWHERE
        for record in records:
            name = key.of_record(take(record))
            if lacks_part(name) or (last is not NOWHERE and not is_before(last, name)):
                raise Unordered
            last = name
            yield name, record

    return key.shown, keyed()


def _same_record(mine: Any, theirs: Any) -> bool:
    """Whether two of the server's values are equal: the same text, apart from the order of JSON keys."""
    if isinstance(mine, msgspec.Raw) and isinstance(theirs, msgspec.Raw):
        return same_json(str(mine, "utf-8"), str(theirs, "utf-8"))
    return bool(mine == theirs) and type(mine) is type(theirs)


def _foreign_test(kind: str) -> Same:
    """A test whether a value of another exporter's bundle equals the server's, however it is written."""

    def same(mine: Any, theirs: Any) -> bool:
        if is_null(mine) or is_null(theirs):
            return is_null(mine) and is_null(theirs)
        text = str(mine, "utf-8")
        now = str(theirs, "utf-8") if isinstance(theirs, msgspec.Raw) else json.dumps(theirs)
        if same_by_value(text, now):
            return True
        if text[0] == '"':
            inner = json.loads(text)
            if kind in MOMENTS and isinstance(theirs, str):
                return moment_parts(inner) is not None and instant(inner, kind) == instant(theirs, kind)
            if kind in STRUCTURED:
                return same_by_value(inner, now)
            text = inner
        return kind in (Kind.NUMERIC, Kind.FLOAT) and same_number(text.strip(BLANKS), now.strip('"'))

    return same
