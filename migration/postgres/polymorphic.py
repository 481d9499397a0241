"""Columns that name rows of several tables: rows of a type that config.py does not know."""

from __future__ import annotations

from typing import Dict, Iterator, List, Tuple

from migration.postgres.references import References, present
from migration.printing import counted
from migration.sql import qualified


def unmeant(references: References) -> Iterator[str]:
    """A line for each such column with rows, of whomever, for which no reference's ``when`` holds. Reads the whole table."""
    meant: Dict[Tuple[str, Tuple[str, ...]], List[str]] = {}
    for reference in references.settings.references:
        if reference.when:
            meant.setdefault((reference.table, tuple(sorted(reference.names))), []).append(reference.when)
    for (table, columns), whens in meant.items():
        ways = references.tables[table].ownership.parts
        if not any(tuple(sorted(way.columns)) == columns for way in ways):
            continue
        rows = references.db.value(
            "SELECT count(*) FROM %s t WHERE %s AND NOT (%s)"
            % (
                references.db.quoted(table),
                present(qualified("t", name) for name in columns),
                " OR ".join("((%s\n) IS TRUE)" % when for when in whens),
            )
        )
        if rows:
            yield (
                "%s of %s, of whomever, stay behind: what they name by %s is of a type for which config.REFERENCES has no"
                " Reference(…, when=…)" % (counted(rows, "row"), table, ", ".join(columns))
            )
