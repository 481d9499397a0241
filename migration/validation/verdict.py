"""Make the report from the results of the checks."""

from __future__ import annotations

import platform
import sqlite3
import sysconfig
from dataclasses import replace
from typing import Any, Dict, Mapping, Sequence

from migration.model import Table
from migration.validation import file_checks
from migration.validation.checked_file import CheckedFile
from migration.validation.checks import Check, Evidence, Looked, results, since
from migration.validation.report import Changes, Report, TableResult


def report_of(
    checks: Sequence[Check],
    looked: Mapping[str, Looked],
    evidence: Evidence,
    file: CheckedFile,
    timestamp: str,
    started: float,
) -> Report:
    """``timestamp``: when the validation began, ISO 8601; ``started``: the same by ``time.perf_counter``."""
    context = evidence.context
    export, live, settings = context.export, context.live, context.settings
    manifest = None if export is None else export.manifest
    email = manifest.user_email if manifest is not None else live.user.email if live is not None else None
    changes: Dict[str, Changes] = {}
    for found in looked.values():
        changes.update(found.changes)
    facts = {
        "timestamp": timestamp,
        "user_email": email,
        "user_id": context.user_id,
        "against": context.against,
        "compared_with": ["bundle"] * (export is not None) + ["source"] * (live is not None),
        "values_shown": settings.show_values,
        "export_timestamp": None if manifest is None else manifest.export_timestamp,
        "orphans_skipped": {} if manifest is None else manifest.orphans_skipped,
        "bundle": None
        if export is None
        else {
            name: {"sha256": checksum.lower(), "bytes": export.stamps[name].size}
            for name, checksum in export.manifest.checksums.items()
        },
        "environment": _environment(evidence),
    }
    if manifest is not None:
        changed = {"cut": manifest.cut, "brought": manifest.brought}
        facts.update({name: counts for name, counts in changed.items() if counts})
    return Report(
        file.described(),
        settings.strict,
        {**facts, "seconds": round(since(started), 3)},
        {table.name: _result(evidence, table) for table in settings.whole_tables},
        [finding for found in looked.values() for finding in found.findings],
        results(checks, looked, settings.strict, settings.root.called),
        changes,
    )


def _result(evidence: Evidence, table: Table) -> TableResult:
    """The row count in PostgreSQL comes from its digest; without one the table is unchanged, so the bundle's count holds."""
    result = replace(
        evidence.tables[table.name].result, proved_forms=len(file_checks.proved_forms(evidence, table))
    )
    if table.name in evidence.digests:
        return replace(result, pg_count=evidence.digests[table.name].result().rows)
    if evidence.context.export is not None and evidence.context.live is not None:
        return replace(result, pg_count=result.bundle_count)
    return result


def _environment(evidence: Evidence) -> Dict[str, Any]:
    context = evidence.context
    environment: Dict[str, Any] = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "platform": sysconfig.get_platform(),  # platform.platform() starts a process, which would inherit our locks
        "database_bytes": context.settings.sqlite_path.stat().st_size,
    }
    if context.live is not None:
        environment["postgresql"] = context.live.db.server_version
    if context.export is not None:
        environment["exported_from_postgresql"] = context.export.manifest.server_version or None
    return environment
