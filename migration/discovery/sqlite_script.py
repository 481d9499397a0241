"""The schema file as it is written: SQLite takes each statement before it is part of it."""

from __future__ import annotations

import sqlite3
from typing import Iterator, List, NamedTuple, Optional, Sequence

from migration.discovery.sqlite_names import name
from migration.errors import UsageError

_HEAD = (
    "-- Made by discover.py from PostgreSQL's catalog. migration_mapping.md says what SQLite cannot express."
)


class Part(NamedTuple):
    """A column or a rule of a table; ``comment``: PostgreSQL's on it."""

    sql: str
    comment: Optional[str] = None


class Script:
    """Statements that an empty database in memory has taken."""

    def __init__(self) -> None:
        self._statements = [_HEAD]
        self._database = sqlite3.connect(":memory:", isolation_level=None)

    def text(self) -> str:
        """The whole file. Raises sqlite3.Error where its tables do not fit together."""
        self._database.execute("PRAGMA foreign_key_check").fetchall()
        self._database.close()
        return "\n".join(self._statements) + "\n"

    def add_table(
        self, target: str, comment: Optional[str], parts: Sequence[Part], checks: Sequence[Part]
    ) -> List[str]:
        """A table with those of the CHECKs that SQLite takes. Returns why others are left out. Raises UsageError (exit 2)."""
        kept, refused = list(checks), []
        why = self._refusal(_create(target, comment, [*parts, *checks]))
        if why is not None:  # which of them? each by itself
            for check in checks:
                why = self._refusal(_create(target, comment, [*parts, check]))
                if why is None:
                    self._database.execute("DROP TABLE " + name(target))
                else:
                    kept.remove(check)
                    refused.append("`%s` is left out: %s" % (check.sql, why))
            why = self._refusal(_create(target, comment, [*parts, *kept]))
        if why is not None:
            raise UsageError(
                "SQLite takes no table like %s: %s" % (target, why),
                "leave the table behind: --exclude TABLE, as PostgreSQL calls it",
            )
        self._statements += ["", _create(target, comment, [*parts, *kept])]
        return refused

    def add_index(self, statement: str) -> Optional[str]:
        """Returns why it is left out, where it is."""
        why = self._refusal(statement)
        if why is None:
            self._statements.append(statement)
        return why

    def add_view(self, view: str, comment: Optional[str], query: str) -> Optional[str]:
        """Returns why it is left out, where it is. What a view reads, SQLite looks up as it is read."""
        statement = "\n".join([*_comment(comment, ""), "CREATE VIEW %s AS" % name(view), query + ";"])
        why = self._refusal(statement)
        if why is not None:
            return why
        why = self._refusal("SELECT * FROM %s LIMIT 0" % name(view))
        if why is None:
            self._statements += ["", statement]
        else:
            self._database.execute("DROP VIEW " + name(view))
        return why

    def _refusal(self, statement: str) -> Optional[str]:
        """Run a statement. Returns why SQLite does not take it, where it does not; then nothing of it stays."""
        try:
            self._database.execute(statement)
        except sqlite3.Error as error:
            return "SQLite says: %s" % error
        return None


def _create(target: str, comment: Optional[str], parts: Sequence[Part]) -> str:
    lines = [*_comment(comment, ""), "CREATE TABLE %s (" % name(target)]
    for place, part in enumerate(parts):
        lines.extend(_comment(part.comment, "    "))
        lines.append("    %s%s" % (part.sql, "," if place < len(parts) - 1 else ""))
    return "\n".join([*lines, ");"])


def _comment(comment: Optional[str], indent: str) -> Iterator[str]:
    for line in (comment or "").splitlines():
        yield "%s-- %s" % (indent, line)
