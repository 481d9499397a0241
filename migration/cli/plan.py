"""What a migration would do, for `migrate.py --dry-run`. Reads PostgreSQL and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Tuple

from migration import conversion, disk
from migration.cli import terminal
from migration.cli.log import log
from migration.model import Kind
from migration.postgres import connecting, parameters
from migration.postgres.orphans import Orphans
from migration.postgres.rows import rows_of_user
from migration.printing import conjugated, counted, size
from migration.settings import Settings
from migration.sqlite import mapping
from migration.sqlite.mapping import TableMapping
from migration.sqlite.schema import read_schema


@dataclass(frozen=True)
class TablePlan:
    """Rows and bytes of JSON that an export would write, and what happens to the columns."""

    name: str
    rows: int
    bytes: int
    conversions: str
    dropped: str


@dataclass(frozen=True)
class Plan:
    """``left_behind``: orphans, and whether config allows them. ``brought``: a line for each table."""

    user_id: str
    tables: Tuple[TablePlan, ...]
    orphans: Tuple[Orphans, ...]
    left_behind: Tuple[Tuple[Orphans, bool], ...]
    needs: Tuple[disk.Need, ...]
    suspects: Tuple[str, ...] = ()
    brought: Tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return all(need.needed <= need.free for need in self.needs)


def plan(settings: Settings) -> Plan:
    """Count what a migration with ``settings`` would move. Raises MigrationError like the export."""
    schema = read_schema(settings.schema_path)
    tables: List[TablePlan] = []
    with connecting.opened(settings) as db:
        rows = rows_of_user(
            db, settings, schema, settings.user_email or settings.default_email, settings.skip_orphans
        )
        rows.require_kept()
        for table in settings.tables:
            mapped = mapping.map_columns(table, rows.catalog.columns[table.name], schema)
            count, size = db.rows(
                "SELECT count(*), coalesce(sum(octet_length(j.line::text) + 2), 0)::bigint FROM (%s) j (line)"
                % rows.as_json(table)
            )[0]
            tables.append(
                TablePlan(
                    mapped.table, count, size, _conversions(mapped), ", ".join(c.name for c in mapped.dropped)
                )
            )
        rows.leaving.require_no_explosion()
        orphans = tuple(rows.orphans())
        left_behind = tuple((found, rows.declared_left_behind(found)) for found in rows.left_behind())
        suspects = (*rows.suspects(), *rows.unmeant())
        brought = tuple(rows.leaving.brought_lines())
        user_id = rows.user.id
    needs = disk.needs_of_one(
        sum(table.bytes for table in tables),
        settings.data_dir,
        settings.sqlite_path,
        settings.backup_dir if settings.backup else None,
    )
    return Plan(user_id, tuple(tables), orphans, left_behind, needs, suspects, brought)


# the same in both, so not shown
_KEPT = {("text", "TEXT"), ("integer", "INTEGER"), ("float", "REAL")}


def _conversions(mapped: TableMapping) -> str:
    """Source type → SQLite type, with the number of columns where it is more than one."""
    counts: Dict[Tuple[str, str], int] = {}
    for pair in mapped.copied:
        kind = pair.source.kind if pair.source.kind is not Kind.STRUCTURE else pair.source.type
        change = (kind, conversion.affinity(pair.target.type))
        if change not in _KEPT:
            counts[change] = counts.get(change, 0) + 1
    return ", ".join(
        "%s→%s" % change + (" ×%d" % number if number > 1 else "") for change, number in counts.items()
    )


_WHAT_BECOMES = {
    "stop": "will stop there, unless --orphans skip is given",
    "skip": "leaves them out",
    "cut": "cuts the reference to NULL",
}


def show(made: Plan, settings: Settings) -> None:
    """Print the plan to stdout."""
    terminal.summary(
        "Dry run: %s %s from %s to %s; nothing was written"
        % (settings.root.called, made.user_id, parameters.masked(settings.postgres), settings.sqlite_path),
        ("table", "rows", "bytes", "conversions", "dropped columns"),
        [(table.name, table.rows, table.bytes, table.conversions, table.dropped) for table in made.tables],
        even_if_quiet=True,
        is_result=True,
    )
    terminal.summary(
        "Disk space, estimated",
        ("for", "folder", "needed", "free"),
        [(what, str(folder), size(needed), size(free)) for what, folder, needed, free in made.needs],
    )
    for line in made.suspects:
        log.warning("%s", line)
    for orphans in made.orphans:
        log.warning(
            "%s of %s %s by %s to rows of %s that are not the %s's: the migration %s",
            counted(orphans.rows, "row"),
            orphans.table,
            conjugated(orphans.rows, "refer"),
            ", ".join(orphans.columns),
            orphans.parent,
            settings.root.called,
            _WHAT_BECOMES[orphans.leaving],
        )
    for line in made.brought:
        log.warning("will be brought, as config.py says: %s", line)
    for orphans, declared in made.left_behind:
        log.warning(
            "%s of %s that %s not exported %s by %s to %s in %s: %s",
            counted(orphans.rows, "row"),
            orphans.table,
            conjugated(orphans.rows, "are"),
            conjugated(orphans.rows, "refer"),
            ", ".join(orphans.columns),
            orphans.to,
            orphans.parent,
            "they stay, as config.py says"
            if declared
            else "the migration will stop there, unless left_behind in config.py says that they may stay",
        )
    if not made.fits:
        log.warning("not enough disk space")
