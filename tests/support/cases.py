"""Small applications: tables and data of a few roots, and how their rows belong to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from migration.model import Reference, Table, root, the_root
from migration.settings import Settings
from migration.sql import quote
from support.migrations import settings_of
from support.places import Place
from support.servers import Database


class Case(NamedTuple):
    """``ways``: the tables but the root's. ``answers``: table → query of the keys of the root's rows, as one text each."""

    ddl: str
    ways: Sequence[Table]
    answers: Dict[str, str]
    references: Sequence[Reference] = ()
    key: str = "int"


def settings_for(database: Database, place: Place, case: Case, **changes: Any) -> Settings:
    """Settings with a SQLite schema of every column, without types."""
    columns: Dict[str, List[str]] = {}
    for table, column in database.rows(
        "SELECT table_name::text, column_name::text FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY ordinal_position"
    ):
        columns.setdefault(table, []).append(quote(column))
    schema = Path(place.folder / "case.sql")
    schema.write_text(
        "".join(
            "CREATE TABLE %s (%s);\n" % (quote(table), ", ".join(names)) for table, names in columns.items()
        )
    )
    given: Dict[str, Any] = {
        "root": root("people", named_by="name"),
        "tables": (Table("people", the_root()), *case.ways),
        "references": tuple(case.references),
        "schema_path": schema,
    }
    return settings_of(database.url, place, "p1", **{**given, **changes})
