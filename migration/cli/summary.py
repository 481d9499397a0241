"""What phases did, as a table on standard output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping

from migration.cli import terminal
from migration.settings import Settings

if TYPE_CHECKING:  # slow, and --help does not need it
    from migration.bundle.manifest import Manifest


def summary_of_phases(
    title: str, settings: Settings, manifest: Manifest, seconds: Mapping[str, Mapping[str, float]]
) -> None:
    """Print rows and bytes of each table, and the ``seconds`` that it took: column → table → seconds."""
    rows = [
        [table.name, manifest.row_counts[table.name], manifest.sizes.get(table.file)]
        + [of_tables[table.name] for of_tables in seconds.values()]
        for table in settings.whole_tables
    ]
    terminal.summary(title, ["table", "rows", "bytes", *seconds], rows)
