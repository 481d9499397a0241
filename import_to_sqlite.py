"""Phase 2: an export bundle into a new SQLite database, in one transaction, in the place of the old one.

    python import_to_sqlite.py

The bundle is verified first, the old database backed up, and the new one published whole or not at all.
"""

from __future__ import annotations

import itertools
import logging
import operator
import re
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import msgspec

import config
from migration import bundle, console, encoding, mapping, target
from migration.bundle import Manifest
from migration.errors import ExitCode, MigrationError
from migration.mapping import TableMapping
from migration.schema import Schema, quote, read_schema
from migration.settings import Settings
from migration.tables import Column
from migration.workers import at_work

log = logging.getLogger("migration.import")


@dataclass(frozen=True)
class Imported:
    """What an import wrote: the bundle's manifest, rows and seconds of each table, and the backup made.

    ``stamp``: of the file that SQLite has looked through and found sound.
    """

    manifest: Manifest
    rows: Mapping[str, int]
    seconds: Mapping[str, float]
    backup: Optional[Path]
    stamp: Optional[target.Stamp]


def import_(settings: Settings) -> Imported:
    """Import the bundle in ``settings.data_dir`` to ``settings.sqlite_path``.

    Raises MigrationError: exit 2 where the schema does not fit, 3 for a value that SQLite cannot hold,
    4 for the bundle, 5 for SQLite. In each case the old database is as it was.
    """
    schema = read_schema(settings.schema_path)
    rows: Dict[str, int] = {}
    seconds: Dict[str, float] = {}
    with bundle.reading(settings.data_dir, bundle.files(settings.tables), settings.user_email) as export:
        columns = mapping.columns_of(export, settings, schema)
        with target.replacing(settings.sqlite_path) as staged, target.errors(settings.sqlite_path):
            database = target.create(staged, schema)
            try:
                taken_off = target.take_off(database)
                _fill_singletons(database, export, settings, columns, schema)
                for table in settings.tables:
                    started = time.perf_counter()
                    mapped = mapping.map_columns(table, columns[table.name], schema)
                    total = export.manifest.row_counts[table.name]
                    with console.progress("import " + table.name, total) as advance:
                        loader = _Loader(table, columns[table.name], mapped, export.manifest.user_id)
                        rows[table.name] = _load(database, export, loader, advance)
                    _check_count(table.file, rows[table.name], total)
                    _check_rows(database, mapped.target, rows[table.name])
                    seconds[table.name] = time.perf_counter() - started
                    log.info(
                        "imported %s: %d rows in %.1f s", table.name, rows[table.name], seconds[table.name]
                    )
                started = time.perf_counter()
                with console.progress("index and check", len(taken_off) + 1, "steps") as advance:
                    for sql in taken_off:
                        _bring_back(database, sql)
                        advance(1)
                    database.execute("COMMIT")
                    _check(staged)
                target.finish(database, staged, schema)
                log.info("indexes, triggers and checks: %.1f s", time.perf_counter() - started)
            finally:
                database.close()
            stamp = target.stamp(staged)
            backup = target.publish(
                staged, settings.sqlite_path, settings.backup_dir if settings.backup else None
            )
    if backup is not None:
        log.info("old database backed up to %s", backup)
        target.prune(settings.backup_dir, settings.keep_backups)
    log.info("database of user %s published as %s", export.manifest.user_id, settings.sqlite_path)
    return Imported(export.manifest, rows, seconds, backup, stamp)


class _Loader:
    """From a table's records to rows for SQLite, column by column: that costs a fraction of cell by cell."""

    def __init__(
        self, table: mapping.Mapped, columns: Sequence[Column], mapped: TableMapping, user_id: str
    ) -> None:
        self.mapped = mapped
        self.file = getattr(table, "file", bundle.USER_DATA)
        self.decode = encoding.record_decoder(columns)
        self._names = [pair.source.name for pair in mapped.copied]
        self._takes = [operator.attrgetter("c%d" % columns.index(pair.source)) for pair in mapped.copied]
        self._key = next((take for take, name in zip(self._takes, self._names) if name == "id"), None)
        self._user_id = user_id
        self._owner = next(
            (
                operator.attrgetter("c%d" % i)
                for i, column in enumerate(columns)
                if column.name == table.owner
            ),
            None,
        )
        self._conversions = [
            (i, encoding.many_converter(pair.source, pair.target.type), convert)
            for i, pair in enumerate(mapped.copied)
            for convert in [
                encoding.converter(
                    pair.source, pair.target.type, pair.source.name in table.json_types, pair.target.not_null
                )
            ]
            if convert is not None
        ]

    @property
    def columns(self) -> List[str]:
        return [pair.target.name for pair in self.mapped.copied]

    def values(self, records: Sequence[Any]) -> List[List[Any]]:
        """The records' values as SQLite is given them, column by column.

        Raises MigrationError: exit 3 for a value that SQLite cannot hold, naming the cell; 4 for another user's row.
        """
        if self._owner is not None:
            self._refuse_strangers(records, self._owner)
        columns: List[Any] = [list(map(take, records)) for take in self._takes]
        for i, convert_many, convert in self._conversions:
            values = columns[i]
            present = [value for value in values if value is not None] if None in values else values
            converted = convert_many(present) if convert_many is not None else None
            if converted is None:
                columns[i] = self._converted(records, i, convert)
            elif present is values:
                columns[i] = converted
            else:
                rest = iter(converted)
                columns[i] = [None if value is None else next(rest) for value in values]
        for number, record in enumerate(records) if any(map(_JSON_NULLS, records)) else ():
            for name in record.json_nulls:
                if name not in self._names:
                    raise bundle.damaged(
                        "%s: %s of %s names no column" % (self.file, encoding.JSON_NULLS, self.name(record))
                    )
                columns[self._names.index(name)][number] = "null"
        return columns

    def _converted(self, records: Sequence[Any], i: int, convert: encoding.Converter) -> List[Any]:
        """One column, value by value, so that the one that cannot be converted is named."""
        converted = []
        for record in records:
            value = self._takes[i](record)
            try:
                converted.append(None if value is None else convert(value))
            except encoding.Unrepresentable as error:
                raise MigrationError(
                    "%s %s, column %s: SQLite cannot hold this value as it is: %s"
                    % (self.mapped.table, self.name(record), self._names[i], error),
                    hint="correct the value in PostgreSQL or the column in the SQLite schema, then export again",
                    exit_code=ExitCode.SOURCE,
                ) from error
            except UnicodeDecodeError as error:  # msgspec passes raw JSON on unread
                raise bundle.damaged(
                    "%s is damaged: %s, column %s is not UTF-8"
                    % (self.file, self.name(record), self._names[i])
                ) from error
        return converted

    def _refuse_strangers(self, records: Sequence[Any], owner: Callable[[Any], Any]) -> None:
        for record in records:
            if not self._is_user(owner(record)):
                raise bundle.damaged(
                    "%s: the row %s belongs to another user than the manifest's"
                    % (self.file, self.name(record))
                )

    def _is_user(self, owner: Any) -> bool:
        if owner is None or owner == self._user_id:
            return True
        value = (
            msgspec.json.decode(owner) if isinstance(owner, msgspec.Raw) else owner
        )  # undeclared, or a number
        return value is None or str(value).rstrip() == self._user_id  # char(n) is padded

    def name(self, record: Any) -> str:
        if self._key is None:
            return "of the user"
        key = self._key(record)
        return str(key, "utf-8", "replace").strip('"') if isinstance(key, msgspec.Raw) else str(key)


_JSON_NULLS = operator.attrgetter("json_nulls")


def _load(
    database: sqlite3.Connection, export: bundle.Reader, loader: _Loader, advance: Callable[[int], None]
) -> int:
    loaded = 0
    for records in export.blocks(loader.file, loader.decode.many, encoding.deep(loader.decode)):
        values = loader.values(records)
        if loader.columns:  # there are none in an empty file of a bundle that names no types
            before = database.total_changes
            try:
                target.insert(database, loader.mapped.target, loader.columns, values)
            except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError) as error:
                rejected = records[database.total_changes - before]
                raise target.failed(
                    "%s %s is rejected by SQLite: %s" % (loader.mapped.table, loader.name(rejected), error),
                    "correct the row in PostgreSQL and export again, or the constraint in the schema file",
                ) from error
        loaded += len(records)
        advance(len(records))
    return loaded


def _fill_singletons(
    database: sqlite3.Connection,
    export: bundle.Reader,
    settings: Settings,
    columns: Mapping[str, Tuple[Column, ...]],
    schema: Schema,
) -> None:
    """users → app_config, the password hash and the account's timestamps; user_preferences → its one row."""
    records = export.user_data()
    if records.get(settings.user.member) is None:
        raise bundle.damaged("%s holds no user" % bundle.USER_DATA)
    for singleton in (settings.user, settings.preferences):
        record = records.get(singleton.member)
        if record is None:
            log.info("the user has no preferences: the schema's defaults hold")
            values = []
        else:
            mapped = mapping.map_columns(singleton, columns[singleton.name], schema)
            loader = _Loader(singleton, columns[singleton.name], mapped, export.manifest.user_id)
            values = _singleton_values(record, singleton.member, loader)
        target.fill_singleton(database, singleton.target, values)


def _singleton_values(record: bytes, member: str, loader: _Loader) -> List[Tuple[str, Any]]:
    """Column and value of each; a NULL that the target column cannot hold is left to its default."""
    try:
        row = [value for (value,) in loader.values([loader.decode(record)])]
    except msgspec.DecodeError as error:
        raise bundle.damaged("%s, %s: %s" % (bundle.USER_DATA, member, error)) from error
    return [
        (pair.target.name, value)
        for pair, value in zip(loader.mapped.copied, row)
        if value is not None or not pair.target.not_null
    ]


def _bring_back(database: sqlite3.Connection, sql: str) -> None:
    """Make an index or a trigger of the schema that the load went without."""
    try:
        database.execute(sql)
    except sqlite3.IntegrityError as error:
        raise target.failed(
            "the rows do not fit an index of the schema: %s" % error,
            "correct the rows in PostgreSQL and export again, or the index in the schema file: "
            + " ".join(sql.split()),
        ) from error
    found = _INSERT_TRIGGER.match(sql)
    if found:
        log.warning(
            "trigger %s did not run for the imported rows: bring what it keeps up to date (a full-text table: "
            "INSERT INTO name(name) VALUES('rebuild'))",
            found[1],
        )


_INSERT_TRIGGER = re.compile(
    r"\s*CREATE\s+(?:TEMP\s+|TEMPORARY\s+)?TRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?(\S+)\s+(?:BEFORE\s+|AFTER\s+)?INSERT\s+ON\b",
    re.IGNORECASE,
)


def _check_rows(database: sqlite3.Connection, table: str, rows: int) -> None:
    held = database.execute("SELECT count(*) FROM " + quote(table)).fetchone()[0]
    if held != rows:
        raise target.failed(
            "%s holds %d rows after %d were inserted: the schema file fills it with rows of its own"
            % (table, held, rows),
            "take them out of the schema file",
        )


def _check_count(file: str, rows: int, expected: int) -> None:
    if rows != expected:
        raise bundle.damaged("%s holds %d records; the manifest says %d" % (file, rows, expected))


def _check(staged: Path) -> None:
    """Nothing dangles and the file is sound, before it is published."""
    with target.opened(staged, 2) as (database, others):
        checks: List[Callable[[sqlite3.Connection], List[Any]]] = [
            *target.integrity_checks(database),
            _violations,
        ]
        with at_work(others, checks) as results:
            *problems, violations = results()
    if violations:
        shown = "\n  ".join(
            "%s %s: %s leads to no row of %s" % violation for violation in violations[: target.LISTED]
        )
        raise target.failed(
            "foreign keys that lead nowhere: %d%s\n  %s"
            % (len(violations), ", of which the first:" if len(violations) > target.LISTED else "", shown),
            "export again with this version: it finds such rows in PostgreSQL, and --orphans skip leaves them out",
        )
    found = list(dict.fromkeys(itertools.chain(*problems)))
    if found:
        raise target.failed("the new database is not sound: %s" % "; ".join(found[: target.LISTED]))


def _violations(database: sqlite3.Connection) -> List[target.Violation]:
    return list(target.foreign_key_violations(database))


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = console.parser(__doc__ or "")
    console.add_user(parser)
    console.add_target(parser)
    console.add_schema(parser)
    console.add_backup(parser)
    return console.run(lambda args: _main(console.settings(args, config)), parser.parse_args(argv), config)


def _main(settings: Settings) -> int:
    imported = import_(settings)
    console.summary(
        "Imported to %s" % settings.sqlite_path,
        ("table", "rows", "bytes", "seconds"),
        [
            (
                table.name,
                imported.rows[table.name],
                imported.manifest.sizes.get(table.file),
                imported.seconds[table.name],
            )
            for table in settings.tables
        ],
    )
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
