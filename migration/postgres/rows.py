"""One user's rows of each table: counted, read as JSON, copied, digested."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
from pathlib import Path
from typing import ContextManager, Dict, Generator, List, Mapping, Optional, Sequence, Tuple

from migration.bundle.writing import Sink
from migration.errors import SourceError, UsageError
from migration.model import Table, Way, root
from migration.postgres import orphans, polymorphic, representable
from migration.postgres.digests import Digest
from migration.postgres.leaving import Leaving
from migration.postgres.orphans import Orphans
from migration.postgres.ownership import Owned
from migration.postgres.records import select_json
from migration.postgres.references import References
from migration.postgres.representable import account_for
from migration.postgres.set_columns import identity
from migration.postgres.shared_rows import merging
from migration.postgres.snapshot import Snapshot
from migration.postgres.users import User, find_user, require_one, user_of_id
from migration.settings import Settings
from migration.sql import qualified, texts
from migration.sqlite.schema import Schema


def rows_of_user(
    db: Snapshot, settings: Settings, schema: Schema, email: Optional[str], skip_orphans: bool
) -> Rows:
    """Find the user and the queries for their rows, with every table and column accounted for.

    ``settings.user_id`` wins over ``email``.

    Raises MigrationError: exit 2 where nobody is named, or where config or schema do not account for a table
    or column; 3 for what PostgreSQL lacks or refuses.
    """
    if settings.user_id is None and email is None:
        by_email = settings.root.named_by == root("").named_by
        raise UsageError(
            "no %s is given: whose data?" % ("e-mail address" if by_email else settings.root.named_by),
            "--user-email you@example.com, MIGRATION_USER_EMAIL or config.DEFAULT_USER_EMAIL"
            if by_email
            else "--user NAME or --user-id KEY, MIGRATION_USER or MIGRATION_USER_ID",
        )
    everybodys = _of_everybody(settings), schema
    db.once("accounted for", everybodys, lambda: account_for(db, *everybodys))
    if settings.user_id is not None:
        user = user_of_id(db, settings, settings.user_id)
    else:
        user = find_user(db, settings, str(email))
    require_one(db, settings, user)
    return Rows(db, settings, user, schema, skip_orphans)


def _of_everybody(settings: Settings) -> Settings:
    """Without what differs between the users of a run."""
    return dataclasses.replace(
        settings, user_id=None, user_email=None, sqlite_path=_NOWHERE, data_dir=_NOWHERE
    )


_NOWHERE = Path()


class Rows:
    """Queries for one user's rows; with ``skip_orphans`` only rows whose references lead to exported rows."""

    def __init__(
        self, db: Snapshot, settings: Settings, user: User, schema: Schema, skip_orphans: bool = False
    ) -> None:
        self.db = db
        self.catalog = db.catalog
        self.user = user
        self.settings = settings
        self.schema = schema
        everybodys = _of_everybody(settings), schema
        self._owned = Owned(db.once("references", everybodys, lambda: References(db, *everybodys)), user)
        self._owned.references.require_sql(self._owned.root_key)
        self._search = orphans.Search(self._owned, skip_orphans)
        self.leaving = Leaving(self._search.sets, schema)
        self._arrived: Dict[str, Digest] = {}  # of records that are merged into everybody's

    @property
    def skipped(self) -> Mapping[str, int]:
        """Rows that ``skip_orphans`` leaves out, by table."""
        return {name: len(rows) for name, rows in self._search.left_out.items()}

    def gone_along(self, exported: Mapping[str, int]) -> Dict[str, int]:
        """Rows that are not exported because of rows that are left out: only these referred to them, or made them the user's.

        By table, of ``exported`` rows by table.
        """
        found = {}
        for table in self.settings.tables if self.skipped else ():
            if not self._search.all.ways.is_plain(table.name):
                sql = "SELECT count(*) FROM %s t WHERE %s"
                with self._hashing(table):
                    rows = self.db.value(
                        sql % (self.db.quoted(table.name), self._search.all.condition(table))
                    )
                found[table.name] = rows - exported[table.name] - self.skipped.get(table.name, 0)
        return {name: rows for name, rows in found.items() if rows}

    def orphans(self) -> List[Orphans]:
        """Every reference from an owned row to a row that is not exported, table by table, parents first."""
        return self._search.orphans()

    def left_behind(self) -> List[Orphans]:
        """Rows that are not exported but refer to rows of the user's own, or hang on rows that only come along."""
        return self._search.left_behind()

    def outside(self) -> Dict[str, int]:
        """Rows of the user by a reference to a table that config leaves behind: ``table (columns) → parent`` → rows."""
        return self._search.outside()

    def declared_left_behind(self, found: Orphans) -> bool:
        """Whether config says that such rows may stay."""
        table = self._search.tables[found.table]
        if table.ownership.way is Way.REFERENCED or found.hangs:
            return True
        if table.ownership.way is Way.ALL and any(
            set(part.columns) == set(found.columns) for part in table.ownership.parts
        ):
            return True  # the other ends are not the user's
        return set(found.columns) <= set(table.left_behind)

    @property
    def owner_texts(self) -> Mapping[str, Tuple[str, ...]]:
        """Table → the texts that its owner column has for the user's key, where equal keys may differ as text."""
        return self._owned.owner_texts

    @property
    def lc_monetary(self) -> Optional[str]:
        """The setting under which money was read as numbers; None where there is no money."""
        return representable.lc_monetary(self.db, self.settings, self.schema)

    def require_kept(self) -> None:
        """Stop at the first column with a value that cannot be kept. Raises MigrationError (exit 3)."""
        representable.require_kept(self.db, self.settings, self.schema, self.condition)

    def suspects(self) -> List[str]:
        """A line for each column of numbers or text, of no key, whose every value names a large object."""
        return representable.suspects(self.db, self.settings, self.schema, self.condition)

    def unmeant(self) -> List[str]:
        """A line for each column that names rows of several tables, and of a type that config does not know."""
        return list(polymorphic.unmeant(self.db, self.settings))

    def condition(self, table: Table) -> str:
        """SQL condition on alias ``t``: the row is to be exported."""
        return self._search.sets.condition(table)

    def is_plain(self, table: Table) -> bool:
        """Whether nothing but its own row and those of its parents says if a row is exported, and as what."""
        return self._search.sets.ways.is_plain(table.name) and not self.leaving.cuts(table.name)

    def count(self, table: Table) -> int:
        sql = "SELECT count(*) FROM {} t WHERE {}".format(self.db.quoted(table.name), self.condition(table))
        return int(self.db.value(sql))

    def as_json(self, table: Table, ordered: bool = True) -> str:
        """Query of one column: each row of the user as a JSON object, in the order of ``select_json``."""
        cuts = self.leaving.cuts(table.name)
        return select_json(self.db, self.catalog, table.name, self.condition(table), ordered, cuts)

    def _hashing(self, table: Table) -> ContextManager[None]:
        return self.db.hashing() if self._search.sets.needs_hashing(table.name) else contextlib.nullcontext()

    def copy(self, table: Table, sink: Sink) -> int:
        """Write the user's rows to a bundle file; take shared rows from the file that already holds them.

        Returns how many there are by what PostgreSQL says, now or when the shared rows were read.
        """
        shared = self.db.exported.get(table.name)
        if shared is None:
            with self._hashing(table):
                return self.db.copy(self.as_json(table), sink)
        if table.owner is None:
            sink.take(*shared[:4])
            return shared.rows
        with merging(shared.path, self.catalog.keys[table.name][0], sink) as merged:
            rows = shared.rows + self.db.copy(self._own(table), merged)
        self._arrived[table.name] = merged.arrived.digest
        return rows

    def _own(self, table: Table, ordered: bool = True) -> str:
        """As ``as_json``, without the rows of an ``or_shared`` table that are everybody's."""
        own = "%s AND %s" % (self._owned.within(table.name, "t"), self._owned.mine(table))
        return select_json(self.db, self.catalog, table.name, own, ordered)

    def record(self, table: Table) -> Optional[bytes]:
        """The user's one row of a table as JSON text, None where there is none.

        Raises MigrationError (exit 3) where there are several.
        """
        lines = io.BytesIO()
        self.db.copy(self.as_json(table), lines)
        records = lines.getvalue().split(b"\n")[:-1]
        if len(records) > 1:
            raise SourceError(
                "the %s has %d rows in %s; there can be one"
                % (self.settings.root.called, len(records), table.name),
                "remove all but the one that holds",
            )
        return records[0] if records else None

    def records(self, table: Table) -> Generator[bytes, None, None]:
        """Each row of the user as JSON text, in that order, at flat memory. To be closed where it is left early."""
        return self.db.stream(self.as_json(table))

    def digest(self, table: Table) -> Digest:
        """Count and content digest of the user's rows, made by PostgreSQL itself, or of records as they arrived from it."""
        shared = self.db.exported.get(table.name)
        if shared is not None:
            if table.owner is None:
                return shared.digest
            own = self._arrived.get(table.name) or self.db.digest(self._own(table, ordered=False))
            return Digest(own.rows + shared.digest.rows, own.sum + shared.digest.sum)
        with self._hashing(table):
            return self.db.digest(self.as_json(table, ordered=False))

    def foreign_rows(self, table: Table, names: Sequence[str]) -> List[str]:
        """Those of the rows named by their key that PostgreSQL has and that are not the user's."""
        names = [
            name for name in names if name.isprintable() and self.db.can_be_told(name)
        ]  # PostgreSQL has no row of a name that it cannot be told
        if not names or not self.catalog.keys[table.name]:
            return []
        sql = "SELECT {name} FROM {table} t WHERE {name} = ANY ({names}) AND ({owned}) IS NOT TRUE".format(
            name=orphans.row_name(self.catalog, table.name, functools.partial(qualified, "t"), identity("t")),
            table=self.db.quoted(table.name),
            names=texts(names),
            owned=self._search.all.condition(table),
        )
        return [name for (name,) in self.db.rows(sql)]
