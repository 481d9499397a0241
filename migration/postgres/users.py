"""The user whose data it is: found by id or by name."""

from __future__ import annotations

from typing import NamedTuple, Optional

import psycopg2

from migration.errors import MigrationError, SourceError, UsageError
from migration.postgres.catalog import apart_from, within
from migration.postgres.snapshot import Snapshot
from migration.printing import counted, printable, with_article
from migration.settings import Settings
from migration.sql import literal, qualified


def everybody(db: Snapshot, settings: Settings) -> str:
    """FROM clause: the users, as ``t``, without those of tables that inherit from theirs and are tables of their own."""
    users = settings.root.name
    apart = apart_from(settings, db.catalog, users)
    table = db.quoted(users) + " t"
    return "(SELECT * FROM {} WHERE {}) t".format(table, within("t", apart)) if apart else table


def without_key(settings: Settings) -> MigrationError:
    called = settings.root.called
    return SourceError(
        "%s in table %s has no %s" % (with_article(called), settings.root.name, settings.root.key),
        "give that %s one in PostgreSQL; without it, nothing there is theirs" % called,
    )


LISTED_USERS = 20


class User(NamedTuple):
    id: str
    email: Optional[str]


def user_of_id(db: Snapshot, settings: Settings, user_id: str) -> User:
    """The user of this id. Raises MigrationError: exit 3 where there is none, 2 for what cannot be one."""
    users = settings.root
    key = db.catalog.column(users.name, users.key)
    wanted = literal(user_id) if db.can_be_told(user_id) else "NULL"
    try:
        rows = db.rows(
            "SELECT {id}::text, {name}::text FROM {users} WHERE {is_it}".format(
                id=qualified("t", users.key),
                name=qualified("t", users.named_by),
                users=everybody(db, settings),
                is_it=_has_key(db, settings, wanted),
            )
        )
    except psycopg2.DataError as error:
        raise UsageError(
            "%s is no key of table %s: its %s is of type %s"
            % (printable(user_id), users.name, users.key, key.type),
            "write it as PostgreSQL does, or name the %s with --user" % users.called,
        ) from error
    if not rows:
        raise SourceError("%s not found: %s" % (users.called, user_id))
    return User(*rows[0])


def _has_key(db: Snapshot, settings: Settings, wanted: str) -> str:
    """SQL condition on alias ``t`` of the users' table: its key is this SQL value."""
    key = db.catalog.column(settings.root.name, settings.root.key)
    return db.equality(key, key).sql(qualified("t", key.name), "{}::{}".format(wanted, key.type))


def require_one(db: Snapshot, settings: Settings, user: User) -> None:
    """Refuse a key that several users have, where PostgreSQL lets them. Raises MigrationError (exit 3)."""
    users = settings.root
    if db.catalog.keys[users.name] == (users.key,):
        return
    condition = _has_key(db, settings, literal(user.id))
    found = db.value("SELECT count(*) FROM %s WHERE %s" % (everybody(db, settings), condition))
    if found > 1:
        raise SourceError(
            "the %s has %d rows in %s; there can be one" % (users.called, found, users.name),
            "remove all but the one that holds",
        )


def find_user(db: Snapshot, settings: Settings, email: str) -> User:
    """The user of exactly this name. Raises MigrationError (exit 3) where there is none."""
    users, source = settings.root, everybody(db, settings)
    name = qualified("t", users.named_by) + '::text COLLATE "C"'
    wanted = literal(email) if db.can_be_told(email) else "NULL"
    rows = db.rows(
        "SELECT {}::text, {} FROM {} WHERE {} = {}".format(
            qualified("t", users.key), name, source, name, wanted
        )
    )
    if len(rows) == 1:
        if rows[0][0] is None:
            raise without_key(settings)
        return User(*rows[0])
    if rows:
        several = counted(len(rows), users.called)
        keys = sorted(str(key) for key, _ in rows)
        shown = ", ".join(keys[:LISTED_USERS]) + (", …" if len(keys) > LISTED_USERS else "")
        raise SourceError(
            "%s are called %s: those whose %s is %s" % (several, email, users.key, shown),
            "say which: --user-id KEY",
            logged="%s have the same name: those whose %s is %s" % (several, users.key, shown),
        )
    total = db.value("SELECT count(*) FROM " + source)
    listed = db.rows(
        "SELECT {name} FROM {source} WHERE {name} IS NOT NULL ORDER BY lower({name}) <> lower({wanted}), 1 LIMIT {limit}".format(
            name=name, source=source, wanted=wanted, limit=LISTED_USERS
        )
    )
    lines = [
        "the %s there:" % counted(total, users.called)
        if total <= LISTED_USERS
        else "the first %d of %s:" % (LISTED_USERS, counted(total, users.called))
    ]
    lines += ["  " + printable(str(address)) for (address,) in listed]
    raise SourceError(
        "%s not found: %s" % (users.called, email),
        'check the spelling (case counts); list all: psql -d DATABASE -c "SELECT %s FROM %s ORDER BY 1"'
        % (users.named_by, db.quoted(users.name).replace('"', "")),
        logged="%s not found" % users.called,
        private_hint="\n".join(lines) if total else "table %s is empty" % users.name,
    )
