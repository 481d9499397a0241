"""Whose rows they are: the user, and the queries for what is theirs."""

from __future__ import annotations

import copy
import io
from typing import Dict, Generator, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from migration.bundle import Sink
from migration.catalog import Catalog, account_for_tables
from migration.errors import ExitCode, MigrationError
from migration.mapping import Mapped, map_all
from migration.schema import Schema, quote
from migration.settings import Settings
from migration.shared import merging
from migration.source import Digest, Snapshot, literal, select_json
from migration.tables import ForeignKey, Singleton, Table

LISTED_USERS = 20
LISTED_ORPHANS = 20


class User(NamedTuple):
    id: str
    email: str


class Orphans(NamedTuple):
    """Rows of the user that point at rows that are not exported: how many, and the first ids."""

    table: str
    columns: Tuple[str, ...]
    parent: str
    rows: int
    sample: Tuple[Tuple[str, str], ...]  # (id of the row, the reference that leads nowhere)


def rows_of_user(
    db: Snapshot, settings: Settings, schema: Schema, email: Optional[str], skip_orphans: bool
) -> Rows:
    """Find the user and the queries for their rows, with every table and column accounted for.

    ``settings.user_id`` wins over ``email``.

    Raises MigrationError: exit 2 where nobody is named, or where config or schema do not account for a table
    or column; 3 for what PostgreSQL lacks or refuses.
    """
    if settings.user_id is None and email is None:
        raise MigrationError(
            "no e-mail address is given: whose data?",
            hint="--user-email you@example.com, MIGRATION_USER_EMAIL or config.DEFAULT_USER_EMAIL",
            exit_code=ExitCode.USAGE,
        )
    account_for(db, settings, schema)
    if settings.user_id is not None:
        user = user_of_id(db, settings.user, settings.user_id)
    else:
        user = find_user(db, settings.user.name, str(email))
    references = dict.fromkeys((*db.catalog.foreign_keys, *schema.foreign_keys))
    return Rows(db, db.catalog, user, settings.tables, references, skip_orphans)


def account_for(db: Snapshot, settings: Settings, schema: Schema) -> None:
    """Stop where a table or column is not accounted for. Raises MigrationError (exit 2 or 3)."""
    account_for_tables(settings, db.catalog)
    map_all(settings, db.catalog.columns, schema)


def user_of_id(db: Snapshot, table: Singleton, user_id: str) -> User:
    """The user of this id. Raises MigrationError (exit 3) where there is none."""
    kind = next(c.type for c in db.catalog.columns[table.name] if c.name == table.owner)
    sql = "SELECT t.{id}::text, t.email::text FROM {users} t WHERE t.{id} = %s::{kind}".format(
        id=quote(table.owner), users=db.quoted(table.name), kind=kind
    )
    rows = db.rows(sql, (user_id,))
    if not rows:
        raise MigrationError("user not found: " + user_id, exit_code=ExitCode.SOURCE)
    return User(*rows[0])


def find_user(db: Snapshot, users: str, email: str) -> User:
    """The user of exactly this e-mail address. Raises MigrationError (exit 3) where there is none."""
    rows = db.rows(
        "SELECT id::text, email::text FROM " + db.quoted(users) + " WHERE email::text = %s", (email,)
    )
    if len(rows) == 1:
        return User(*rows[0])
    if rows:
        raise MigrationError(
            "%d users have the e-mail address %s" % (len(rows), email),
            logged="%d users have the same e-mail address" % len(rows),
            hint="make the addresses in table %s unique" % users,
            exit_code=ExitCode.SOURCE,
        )
    total = db.value("SELECT count(*) FROM " + db.quoted(users))
    listed = db.rows(
        "SELECT email::text FROM "
        + db.quoted(users)
        + " ORDER BY lower(email::text) <> lower(%s), email::text LIMIT %s",
        (email, LISTED_USERS),
    )
    lines = [
        "the %d users there:" % total
        if total <= LISTED_USERS
        else "the first %d of %d users:" % (LISTED_USERS, total)
    ]
    lines += ["  " + str(address) for (address,) in listed]
    raise MigrationError(
        "user not found: " + email,
        logged="user not found",
        hint='check the spelling (case counts); list all: psql -d DATABASE -c "SELECT email, full_name FROM %s ORDER BY email"'
        % db.quoted(users).replace('"', ""),
        private_hint="\n".join(lines) if total else "table %s is empty" % users,
        exit_code=ExitCode.SOURCE,
    )


class Rows:
    """The queries for one user's rows: what is theirs, and of that what refers only to exported rows."""

    def __init__(
        self,
        db: Snapshot,
        catalog: Catalog,
        user: User,
        tables: Sequence[Table],
        references: Iterable[ForeignKey],
        skip_orphans: bool = False,
    ) -> None:
        self.db = db
        self.catalog = catalog
        self.user = user
        self.tables = {table.name: table for table in tables}
        # Keys of SQLite's that the source has no column for are filled by nothing; dropped columns go nowhere.
        self.references = [
            key
            for key in references
            if key.table in self.tables
            and key.parent in self.tables
            and set(key.columns) <= self._names(key.table) - set(self.tables[key.table].dropped)
            and set(key.parent_columns) <= self._names(key.parent)
        ]
        self.skip_orphans = skip_orphans

    def seen_by(self, db: Snapshot) -> Rows:
        """The same rows, read through another connection."""
        other = copy.copy(self)
        other.db = db
        return other

    def _names(self, table: str) -> Set[str]:
        return {column.name for column in self.catalog.columns[table]}

    def owned(self, table: Table) -> str:
        """SQL condition on alias ``t``: the row is the user's, or everybody's."""
        rule = table.ownership
        if rule.parent is not None:
            assert rule.column is not None
            parent = self.tables[rule.parent]
            return "t.{} IN (SELECT t.{} FROM {} t WHERE {})".format(
                quote(rule.column),
                quote(self._parent_key(table.name, rule.column, rule.parent)),
                self.db.quoted(parent.name),
                self.owned(parent),
            )
        if rule.column is None:
            return "true"
        mine = self._mine(table.name, rule.column)
        return "({} OR t.{} IS NULL)".format(mine, quote(rule.column)) if rule.or_shared else mine

    def _parent_key(self, table: str, column: str, parent: str) -> str:
        for key in self.references:
            if key.table == table and key.parent == parent and key.columns == (column,):
                return key.parent_columns[0]
        return "id"

    def complete(self, table: Table, path: Tuple[str, ...] = ()) -> str:
        """``owned``, and every reference leads to an exported row, all the way up."""
        keys = [key for key in self.references if key.table == table.name]
        conditions = [self._resolved(key, (*path, table.name)) for key in keys]
        owned = self.owned(table)
        chains = [key for key in keys if key.parent == table.name]
        if chains:
            conditions = [self._unbroken(table, owned, conditions, chains)]
        return " AND ".join([owned, *conditions])

    def _unbroken(self, table: Table, owned: str, conditions: List[str], chains: List[ForeignKey]) -> str:
        """The row is not left out itself, nor refers within its table to one that is, however far up."""
        primary = self.catalog.primary_keys[table.name]
        needed = list(dict.fromkeys([*primary, *(name for key in chains for name in key.parent_columns)]))
        names = ", ".join("t." + quote(name) for name in needed)
        hangs = " OR ".join(
            "("
            + " AND ".join(
                "t.%s = b.%s" % (quote(mine), quote(theirs))
                for mine, theirs in zip(key.columns, key.parent_columns)
            )
            + ")"
            for key in chains
        )
        mine = ", ".join("t." + quote(name) for name in primary)
        return (
            "({mine}) NOT IN (WITH RECURSIVE broken ({plain}) AS ("
            "SELECT {names} FROM {table} t WHERE {owned} AND NOT ({resolved}) "
            "UNION SELECT {names} FROM {table} t JOIN broken b ON {hangs} WHERE {owned}) "
            "SELECT {keys} FROM broken)"
        ).format(
            mine=mine,
            plain=", ".join(quote(name) for name in needed),
            names=names,
            table=self.db.quoted(table.name),
            owned=owned,
            resolved=" AND ".join(conditions),
            hangs=hangs,
            keys=", ".join(quote(name) for name in primary),
        )

    def _resolved(self, key: ForeignKey, path: Tuple[str, ...]) -> str:
        """The reference is NULL or leads to an exported row. A cycle is followed once."""
        parent = self.tables[key.parent]
        within = self.owned(parent) if key.parent in path else self.complete(parent, path)
        return "(({absent}) OR ({mine}) IN (SELECT {theirs} FROM {parent} t WHERE {present} AND {within}))".format(
            absent=" OR ".join("t.%s IS NULL" % quote(name) for name in key.columns),
            mine=", ".join("t." + quote(name) for name in key.columns),
            theirs=", ".join("t." + quote(name) for name in key.parent_columns),
            parent=self.db.quoted(key.parent),
            # one NULL among them would make IN unknown instead of false
            present=" AND ".join("t.%s IS NOT NULL" % quote(name) for name in key.parent_columns),
            within=within,
        )

    def condition(self, table: Mapped) -> str:
        """SQL condition on alias ``t``: the row is to be exported."""
        if isinstance(table, Singleton):
            return self._mine(table.name, table.owner)
        return self.complete(table) if self.skip_orphans else self.owned(table)

    def _mine(self, table: str, column: str) -> str:
        kind = next(c.type for c in self.catalog.columns[table] if c.name == column)
        return "t.{} = {}::{}".format(quote(column), literal(self.user.id), kind)

    def orphans(self) -> List[Orphans]:
        """Every reference from an owned row to a row that is not exported, table by table, parents first."""
        found = []
        for table in self.tables.values():
            for key in self.references:
                if key.table != table.name:
                    continue
                if (
                    not self.skip_orphans
                    and (table.ownership.column,) == key.columns
                    and table.ownership.parent == key.parent
                ):
                    continue  # its being owned is that this reference leads somewhere
                where = "{} AND NOT {}".format(self.owned(table), self._resolved(key, (table.name,)))
                source = "FROM {} t WHERE {}".format(self.db.quoted(table.name), where)
                rows = self.db.value("SELECT count(*) " + source)
                if rows:
                    sample = self.db.rows(
                        "SELECT {}, {} {} ORDER BY 1 LIMIT {}".format(
                            self.row_name(table.name),
                            " || ', ' || ".join("t.%s::text" % quote(name) for name in key.columns),
                            source,
                            LISTED_ORPHANS,
                        )
                    )
                    found.append(Orphans(table.name, key.columns, key.parent, rows, tuple(sample)))
        return found

    def skipped(self) -> Dict[str, int]:
        """Rows that ``skip_orphans`` leaves out, by table."""
        counts = {}
        for table in self.tables.values():
            left_out = "SELECT count(*) FROM {} t WHERE {} AND NOT ({})".format(
                self.db.quoted(table.name), self.owned(table), self.complete(table)
            )
            rows = int(self.db.value(left_out))
            if rows:
                counts[table.name] = rows
        return counts

    def row_name(self, table: str) -> str:
        """SQL expression: the row's primary key as text."""
        return " || ', ' || ".join("t.%s::text" % quote(name) for name in self.catalog.primary_keys[table])

    def count(self, table: Table) -> int:
        sql = "SELECT count(*) FROM {} t WHERE {}".format(self.db.quoted(table.name), self.condition(table))
        return int(self.db.value(sql))

    def as_json(self, table: Mapped, ordered: bool = True) -> str:
        """Query of one column: each row of the user as a JSON object, by primary key."""
        return select_json(self.db, self.catalog, table.name, self.condition(table), ordered)

    def copy(self, table: Table, sink: Sink) -> None:
        """Write each row of the user to a file of the bundle; what everybody shares comes from where it is already."""
        everybodys = self.db.exported.get(table.name)
        if everybodys is None:
            self.db.copy(self.as_json(table), sink)
        elif table.owner is None:
            sink.take(*everybodys[:4])
        else:
            with merging(everybodys.path, self.catalog.primary_keys[table.name][0], sink) as merged:
                self.db.copy(self._own(table), merged)

    def _own(self, table: Table, ordered: bool = True) -> str:
        """As ``as_json``, without the rows of an ``or_shared`` table that are everybody's."""
        assert table.owner is not None
        return select_json(self.db, self.catalog, table.name, self._mine(table.name, table.owner), ordered)

    def record(self, singleton: Singleton) -> Optional[bytes]:
        """The user's row of a singleton's table as JSON text, None where there is none.

        Raises MigrationError (exit 3) where there are several.
        """
        lines = io.BytesIO()
        self.db.copy(self.as_json(singleton), lines)
        records = lines.getvalue().split(b"\n")[:-1]
        if len(records) > 1:
            raise MigrationError(
                "the user has %d rows in %s; there can be one" % (len(records), singleton.name),
                hint="remove all but the one that holds",
                exit_code=ExitCode.SOURCE,
            )
        return records[0] if records else None

    def records(self, table: Mapped) -> Generator[bytes, None, None]:
        """Each row of the user as JSON text, by primary key, at flat memory. To be closed where it is left early."""
        return self.db.stream(self.as_json(table))

    def digest(self, table: Mapped) -> Digest:
        """Count and content digest of the user's rows, made by PostgreSQL itself."""
        everybodys = self.db.exported.get(table.name)
        if everybodys is not None and isinstance(table, Table):
            if table.owner is None:
                return everybodys.digest
            own = self.db.digest(self._own(table, ordered=False))
            return Digest(own.rows + everybodys.digest.rows, own.sum + everybodys.digest.sum)
        return self.db.digest(self.as_json(table, ordered=False))

    def strangers(self, table: Table, names: Sequence[str]) -> List[str]:
        """Those of the rows named by primary key that PostgreSQL has and that are not the user's."""
        names = [
            name for name in names if name.isprintable()
        ]  # PostgreSQL has no row of a name that it cannot be told
        if not names:
            return []
        sql = "SELECT {name} FROM {table} t WHERE {name} = ANY (ARRAY[{names}]::text[]) AND ({owned}) IS NOT TRUE".format(
            name=self.row_name(table.name),
            table=self.db.quoted(table.name),
            names=", ".join(map(literal, names)),
            owned=self.owned(table),
        )
        return [name for (name,) in self.db.rows(sql)]
