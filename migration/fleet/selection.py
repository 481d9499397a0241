"""Choose the users to migrate: all, the active ones, or those that a file names."""

from __future__ import annotations

import contextlib
import json
import uuid
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Set

from migration.errors import SourceError, UsageError
from migration.model import Kind, Root, root
from migration.postgres.snapshot import Snapshot
from migration.postgres.users import everybody, without_key
from migration.printing import plural, with_article
from migration.settings import Settings
from migration.sql import quote, texts

ACTIVE = "is_active"  # column of the users' table
LISTED = 20


def users(db: Snapshot, settings: Settings, file: Optional[str], active: bool) -> Iterator[str]:
    """The ids of the users, streamed; names in a file are held in memory.

    Raises UsageError for the file, SourceError if a user is not found.
    """
    if file is not None:
        return iter(_named(db, settings, Path(file).expanduser()))
    sql = "SELECT pg_catalog.to_json(t.{id}::text) FROM {users}".format(
        id=quote(settings.root.key), users=everybody(db, settings)
    )
    if active:
        kinds = {column.name: column.kind for column in db.catalog.columns[settings.root.name]}
        if kinds.get(ACTIVE) is not Kind.BOOLEAN:
            raise UsageError(
                "--where-active reads the column %s, and table %s has no such column%s"
                % (ACTIVE, settings.root.name, " of type boolean" if ACTIVE in kinds else ""),
                "leave it away to migrate all, or name those to migrate in a file: --users-from FILE",
            )
        sql += " WHERE t.%s" % ACTIVE
    return (_id(user, settings) for user in db.stream(sql))


def _id(user: bytes, settings: Settings) -> str:
    if not user:  # SQL NULL
        error = without_key(settings)
        error.hint = "%s; or name the others with --users-from" % error.hint
        raise error
    return str(json.loads(user.decode("utf-8")))


def _named(db: Snapshot, settings: Settings, file: Path) -> List[str]:
    key, called = settings.root.key, settings.root.called
    several = plural(called)
    names = _lines(file, settings.root)
    is_uuid = any(c.name == key and c.kind is Kind.UUID for c in db.catalog.columns[settings.root.name])
    told = [name for name in names if db.can_be_told(name)]
    written = list(map(_as_uuid, told)) if is_uuid else told  # as PostgreSQL writes it
    sql = (
        "SELECT w.name, t.{id}::text FROM {users}"
        ' JOIN unnest({names}, {ids}) w (name, id) ON {by} COLLATE "C" = {of}'
    )
    found: Dict[str, Set[str]] = {}
    for by, of in ((settings.root.named_by, "w.name"), (key, "w.id")):
        query = sql.format(
            id=quote(key),
            users=everybody(db, settings),
            by="t.%s::text" % quote(by),
            of=of,
            names=texts(told),
            ids=texts(written),
        )
        for name, user in db.rows(query):
            if user is None:
                raise without_key(settings)
            found.setdefault(name, set()).add(user)
    _require(
        [names[name] for name in names if name not in found],
        "%s not found" % several,
        file,
        "check the spelling (case counts): %s's %s or %s a line"
        % (with_article(called), settings.root.named_by, key),
    )
    _require(
        [names[name] for name in names if len(found[name]) > 1],
        "names of more than one " + called,
        file,
        "name these %s by their ids, or by their names where the id of one is the name of another" % several,
    )
    return sorted({user for name in names for user in found[name]})


def _as_uuid(name: str) -> str:
    with contextlib.suppress(ValueError):
        return str(uuid.UUID(name))
    return name


def _lines(file: Path, of: Root) -> Dict[str, str]:
    """Name → line number and name, for messages."""
    if of.called == root("").called:
        what = "an e-mail address or user id a line"
    else:
        what = "%s's %s or %s a line" % (with_article(of.called), of.named_by, of.key)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "cannot read %s: %s" % (file, getattr(error, "strerror", None) or "not UTF-8"),
            "set --users-from to a text file with " + what,
        ) from error
    names: Dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        name = line.strip()
        if "\0" in name:
            raise UsageError(
                "%s holds a NUL in line %d" % (file, number),
                "set --users-from to a text file with " + what,
            )
        if name and not name.startswith("#"):
            names.setdefault(name, "line %d: %s" % (number, name))
    if not names:
        raise UsageError(
            "%s names nobody" % file,
            what + ", or leave --users-from away to migrate everybody",
        )
    return names


def _require(wrong: List[str], what: str, file: Path, hint: str) -> None:
    if wrong:
        more = ["… and %d more" % (len(wrong) - LISTED)] if len(wrong) > LISTED else []
        raise SourceError(
            "%s, in %s: %d" % (what, file, len(wrong)),
            hint,
            private_hint="\n".join("  " + line for line in wrong[:LISTED] + more),
        )
