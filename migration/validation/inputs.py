"""What a validation compares the database with: the bundle, PostgreSQL, and their columns."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sqlite3
import time
from dataclasses import dataclass, field
from typing import Dict, FrozenSet, Iterator, Mapping, Optional, Tuple

from migration.bundle.changes import Changes, parsed, read_changes
from migration.bundle.manifest import MANIFEST, Manifest, as_written, files_of, owners_of, read_manifest
from migration.bundle.reading import Reader, open_bundle
from migration.errors import ExitCode, MigrationError
from migration.model import USER_DATA, Column, Table
from migration.postgres import connecting
from migration.postgres.rows import Rows, rows_of_user
from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sqlite import mapping, schema
from migration.sqlite.mapping import TableMapping
from migration.sqlite.schema import Schema, TargetColumn, read_schema
from migration.validation import keys, showing

Columns = Mapping[str, Tuple[Column, ...]]


@dataclass(frozen=True)
class Context:
    """What a database is compared with.

    ``export``: the verified bundle; ``live``: the user's rows in PostgreSQL; at least one of them is set.
    ``held``: the columns of the bundle's records; ``columns``: the best that is known of the source's columns.
    ``records``: the JSON text of each single row's record, None if there is none.
    ``changes``: what was cut and brought, by the list of the bundle or else of PostgreSQL.
    ``fresh``: an import of this run has just made the database; nobody has worked with it.
    ``doubted``: tables of which PostgreSQL may hold others than the bundle, so that a digest, or the one row, is compared.
    """

    database: sqlite3.Connection
    settings: Settings
    schema: Schema
    export: Optional[Reader]
    live: Optional[Rows]
    held: Columns
    columns: Columns
    records: Mapping[str, Optional[bytes]]
    changes: Changes = Changes()
    fresh: bool = False
    doubted: FrozenSet[str] = frozenset()
    bundle_seconds: float = 0.0  # to verify the bundle
    fingerprint: showing.Fingerprints = field(default_factory=showing.Fingerprints)

    @property
    def against(self) -> str:
        """What SQLite's cells are compared with."""
        return _against(self.settings, self.export)

    @property
    def compared(self) -> Columns:
        """The columns of the records that SQLite's cells are compared with."""
        if self.against == "bundle":
            return self.held
        assert self.live is not None
        return self.live.catalog.columns

    @property
    def expected_rows(self) -> Optional[int]:
        """The number of the bundle's records; None without a bundle."""
        if self.export is None:
            return None
        return sum(self.export.manifest.row_counts[table.name] for table in self.settings.whole_tables)

    @property
    def user_id(self) -> str:
        if self.export is not None:
            return self.export.manifest.user_id
        assert self.live is not None
        return self.live.user.id

    def owners(self, table: str) -> FrozenSet[str]:
        """The texts by which the owner column of a table names the user."""
        if self.export is not None:
            return owners_of(self.export.manifest, table)
        assert self.live is not None
        return as_written((self.user_id, *self.live.owner_texts.get(table, ())))

    def has_table(self, table: str) -> bool:
        """Whether there is a table of that name; a view does not count."""
        return bool(self.columns_in_sqlite(table))

    def columns_in_sqlite(self, table: str) -> Mapping[str, TargetColumn]:
        """The columns of a table of the database: name in lower case → column; empty without the table."""
        return self._described.get(table.lower(), {})

    @functools.cached_property
    def _described(self) -> Dict[str, Mapping[str, TargetColumn]]:
        return {name.lower(): columns for name, columns in schema.columns_of(self.database, self.schema)}

    @functools.cached_property
    def _mapped(self) -> Dict[Tuple[str, int], Tuple[Tuple[Column, ...], TableMapping]]:
        """By a table's name and the id of its columns, which are kept: to compare them takes longer than all the rest."""
        return {}

    @functools.cached_property
    def _is_utf8(self) -> bool:
        return bool(self.database.execute("PRAGMA encoding").fetchone() == ("UTF-8",))

    def mapped(self, table: Table, columns: Columns) -> TableMapping:
        """The columns of ``table`` that the database has."""
        key = table.name, id(columns[table.name])
        if key not in self._mapped:
            self._mapped[key] = columns[table.name], self._map(table, columns)
        return self._mapped[key][1]

    def _map(self, table: Table, columns: Columns) -> TableMapping:
        made = mapping.map_columns(table, columns[table.name], self.schema)
        present = set(self.columns_in_sqlite(made.target))
        if made.generated:
            present |= set(schema.describe_columns(self.database, made.target, generated=True))
        pairs = (*made.copied, *made.generated)
        return made._replace(copied=tuple(pair for pair in pairs if pair.target.name.lower() in present))

    def source_key(self, table: Table, columns: Columns) -> Tuple[str, ...]:
        """The columns of a table's key in PostgreSQL, if known and present in the records; else none."""
        live = {} if self.live is None else self.live.catalog.keys
        held = {} if self.export is None else self.export.manifest.keys
        return mapping.key_of(table, columns[table.name], {**live, **held})

    def key(self, table: Table, mapped: TableMapping, columns: Columns) -> keys.Key:
        """How rows and records of a table are paired. A key column that holds the user's key in every row is left out."""
        in_sqlite = self.columns_in_sqlite(mapped.target).values()
        known = self.source_key(table, columns)
        if not table.ownership.or_shared:
            known = tuple(name for name in known if name != table.owner)
        return keys.pairing_key(in_sqlite, mapped, known, self._is_utf8)


@contextlib.contextmanager
def context_of(
    database: sqlite3.Connection,
    settings: Settings,
    expected: Schema,
    db: Optional[Snapshot] = None,
    rows: Optional[Rows] = None,
    fresh: bool = False,
) -> Iterator[Context]:
    """Open the bundle and the source, whichever exist and are wanted. The caller holds the data folder's lock.

    ``db``: an open snapshot to use; None: open one. ``rows``: those that an export found, perhaps under ``db``.

    Raises MigrationError: exit 3 for PostgreSQL, 4 for the bundle.
    """
    started = time.perf_counter()
    with _bundle(settings) as export:
        seconds = time.perf_counter() - started
        with _live(settings, expected, None if export is None else export.manifest, db, rows) as live:
            made = _context(database, settings, expected, export, live)
            yield dataclasses.replace(made, fresh=fresh, bundle_seconds=seconds)


def of_bundle(
    database: sqlite3.Connection, settings: Settings, expected: Schema, export: Reader, digested: bool
) -> Context:
    """The context of a comparison with an open bundle alone. Raises BundleError."""
    made = _context(database, settings, expected, export, None)
    return dataclasses.replace(made, doubted=_names(settings)) if digested else made


def is_bundle_needed(settings: Settings) -> bool:
    """Whether a missing bundle is an error, because PostgreSQL cannot be asked instead."""
    return settings.offline or settings.against == "bundle"


@contextlib.contextmanager
def _bundle(settings: Settings) -> Iterator[Optional[Reader]]:
    """The verified bundle; None if there is none and PostgreSQL can be asked instead."""
    there = (settings.data_dir / name for name in (MANIFEST, USER_DATA))
    if not is_bundle_needed(settings) and not any(path.exists() for path in there):
        yield None
        return
    tables = files_of(settings.whole_tables)
    with open_bundle(
        settings.data_dir, tables, settings.user_email, settings.user_id, True, settings.root.called
    ) as export:
        yield export


def require_source(settings: Settings) -> None:
    """Do the validation's first look at PostgreSQL early, to fail before the import. Raises MigrationError."""
    if (settings.data_dir / MANIFEST).exists():  # else the import reports the missing bundle
        manifest = read_manifest(settings.data_dir)
        with _live(settings, read_schema(settings.schema_path), manifest, None, None):
            pass


@contextlib.contextmanager
def _live(
    settings: Settings,
    expected: Schema,
    manifest: Optional[Manifest],
    db: Optional[Snapshot],
    rows: Optional[Rows],
) -> Iterator[Optional[Rows]]:
    """The user's rows in PostgreSQL, chosen by the same rules as the bundle's."""
    if settings.offline:
        yield None
        return
    email = settings.user_email or (manifest.user_email if manifest else settings.default_email)
    if manifest is not None and not email and settings.user_id is None:  # a user without a name
        settings = dataclasses.replace(settings, user_id=manifest.user_id)
    skipped = settings.skip_orphans
    if manifest is not None:
        skipped = manifest.orphans == "skip" if manifest.orphans else bool(manifest.orphans_skipped)
    try:
        with connecting.opened(settings, db) as live:
            if rows is not None and _are_the_same(rows, live, expected, manifest, skipped):
                yield rows
            else:
                yield rows_of_user(live, settings, expected, email, skipped)
    except MigrationError as error:
        if error.exit_code == ExitCode.SOURCE and manifest is not None and settings.against != "source":
            without = "validate against the bundle alone with --offline, in migrate.py beside --skip-export"
            error.hint = "%s; or %s" % (error.hint, without) if error.hint else without
        raise


def _are_the_same(
    rows: Rows, db: Snapshot, expected: Schema, manifest: Optional[Manifest], skipped: bool
) -> bool:
    """Whether the rows that an export found would be found again."""
    if manifest is None or manifest.user_id != rows.user.id or rows.settings.skip_orphans != skipped:
        return False
    return rows.db is db and rows.schema is expected


def _against(settings: Settings, export: Optional[Reader]) -> str:
    return settings.against or ("source" if export is None else "bundle")


def _context(
    database: sqlite3.Connection,
    settings: Settings,
    expected: Schema,
    export: Optional[Reader],
    live: Optional[Rows],
) -> Context:
    held: Columns = {} if export is None else mapping.columns_of(export, settings, expected)
    typed: Columns = {} if export is None else export.manifest.columns
    now: Columns = {} if live is None else live.catalog.columns
    if export is not None and _against(settings, export) == "bundle":
        members = export.user_data()
        records = {table.name: members.get(table.member) for table in settings.single_rows}
    else:
        assert live is not None
        records = {table.name: live.record(table) for table in settings.single_rows}
    if export is not None:
        changes = read_changes(export)
    else:
        assert live is not None
        changes = parsed(list(live.leaving.listed()))
    doubted = frozenset() if export is None or live is None else _names(settings)
    columns = {**held, **now, **typed}
    return Context(
        database, settings, expected, export, live, held, columns, records, changes, doubted=doubted
    )


def _names(settings: Settings) -> FrozenSet[str]:
    return frozenset(table.name for table in settings.tables)
