"""The user whose data it is: found by id or by name."""

from __future__ import annotations

from typing import NamedTuple, Optional

from migration.errors import MigrationError, SourceError
from migration.postgres.catalog import apart_from, within
from migration.postgres.snapshot import Snapshot
from migration.printing import printable
from migration.settings import Settings
from migration.sql import literal, qualified


def everybody(db: Snapshot, settings: Settings) -> str:
    """FROM clause: the users, as ``t``, without those of tables that inherit from theirs and are tables of their own."""
    users = settings.root.name
    apart = apart_from(settings, db.catalog, users)
    table = db.quoted(users) + " t"
    return "(SELECT * FROM {} WHERE {}) t".format(table, within("t", apart)) if apart else table


def without_key(settings: Settings) -> MigrationError:
    return SourceError(
        "a user in table %s has no %s" % (settings.root.name, settings.root.key),
        "give that user one in PostgreSQL; without it, nothing there is theirs",
    )


LISTED_USERS = 20


class User(NamedTuple):
    id: str
    email: Optional[str]


def user_of_id(db: Snapshot, settings: Settings, user_id: str) -> User:
    """The user of this id. Raises MigrationError (exit 3) where there is none."""
    users = settings.root
    key = db.catalog.column(users.name, users.key)
    rows = db.rows(
        "SELECT {id}::text, {name}::text FROM {users} WHERE {is_it}".format(
            id=qualified("t", users.key),
            name=qualified("t", users.named_by),
            users=everybody(db, settings),
            is_it=db.equality(key, key).sql(
                qualified("t", users.key), "{}::{}".format(literal(user_id), key.type)
            ),
        )
    )
    if not rows:
        raise SourceError("user not found: " + user_id)
    return User(*rows[0])


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
        raise SourceError(
            "%d users have the e-mail address %s" % (len(rows), email),
            "make the addresses in table %s unique" % users.name,
            logged="%d users have the same e-mail address" % len(rows),
        )
    total = db.value("SELECT count(*) FROM " + source)
    listed = db.rows(
        "SELECT {name} FROM {source} WHERE {name} IS NOT NULL ORDER BY lower({name}) <> lower({wanted}), 1 LIMIT {limit}".format(
            name=name, source=source, wanted=wanted, limit=LISTED_USERS
        )
    )
    lines = [
        "the %d users there:" % total
        if total <= LISTED_USERS
        else "the first %d of %d users:" % (LISTED_USERS, total)
    ]
    lines += ["  " + printable(str(address)) for (address,) in listed]
    raise SourceError(
        "user not found: " + email,
        'check the spelling (case counts); list all: psql -d DATABASE -c "SELECT %s FROM %s ORDER BY 1"'
        % (users.named_by, db.quoted(users.name).replace('"', "")),
        logged="user not found",
        private_hint="\n".join(lines) if total else "table %s is empty" % users.name,
    )
