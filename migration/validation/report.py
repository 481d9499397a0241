"""The validation report: what was compared, what was found, and the verdict."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import msgspec

from migration import files
from migration.errors import BundleError, MigrationError
from migration.printing import printable_json
from migration.validation import page

# What the messages of each check begin with
PREFIXES = {
    "counts": "Row count mismatch",
    "contents": "Difference",
    "source": "Source has changed since the export of",
    "isolation": "Isolation",
    "references": "Foreign key violation",
    "json": "JSON",
    "types": "Type",
    "user": "User data",
    "schema": "Schema",
    "additions": "Beyond the schema",
    "integrity": "Integrity",
    "orphans": "Left out of",
}
REPORT = "validation_report.json"
PAGE = "validation_report.html"


@dataclass(frozen=True)
class Finding:
    """An error or, if not ``error``, a warning; ``page`` explains each ``check``.

    ``count``: how many findings it stands for.
    """

    check: str
    message: str
    table: Optional[str] = None
    row: Optional[str] = None
    column: Optional[str] = None
    error: bool = True
    count: int = 1


class Listing:
    """The first findings of one check in one table, and the number of all. All are errors or all are warnings."""

    def __init__(self, check: str, table: Optional[str], listed: int, error: bool = True) -> None:
        self.total = 0
        self._check, self._table, self._listed, self._error = check, table, listed, error
        self._first: List[Finding] = []

    def add(self, finding: Finding) -> None:
        self.total += 1
        if self.total <= self._listed:
            self._first.append(finding)

    @property
    def findings(self) -> List[Finding]:
        more = self.total - len(self._first)
        if not more:
            return self._first
        where = self._table + ": " if self._table else ""
        message = "%s: %s%d more" % (PREFIXES[self._check], where, more)
        return [*self._first, Finding(self._check, message, self._table, error=self._error, count=more)]


class CheckResult(NamedTuple):
    """The result of a check: the ``number`` of things it looked at, each a ``unit``, and the ``seconds`` it took.

    ``seconds`` is None if it ran as part of comparing the contents. ``note``: why it did not run.
    """

    name: str
    looked_at: str
    unit: str
    number: int = 0
    seconds: Optional[float] = None
    errors: int = 0
    warnings: int = 0
    note: Optional[str] = None

    @property
    def result(self) -> str:
        if self.note is not None:
            return "not done"
        return "errors" if self.errors else "warnings" if self.warnings else "ok"

    def as_json(self) -> Dict[str, Any]:
        seconds = None if self.seconds is None else round(self.seconds, 3)
        return {**self._asdict(), "seconds": seconds, "result": self.result}

    def __str__(self) -> str:
        if self.note is not None:
            return "%s: %s: not done: %s" % (self.name, self.looked_at, self.note)
        found = [
            "%d %s%s" % (number, noun, "" if number == 1 else "s")
            for number, noun in ((self.errors, "error"), (self.warnings, "warning"))
            if number
        ]
        return "%s: %s: %d %s%s%s: %s" % (
            self.name,
            self.looked_at,
            self.number,
            self.unit,
            "" if self.number == 1 else "s",
            "" if self.seconds is None else ", %.2f s" % self.seconds,
            ", ".join(found) or "ok",
        )


@dataclass(frozen=True)
class TableResult:
    """The rows of one table in each place, None for a place not looked at, and the result of comparing its cells.

    ``columns``: how many are migrated; ``dropped``: source columns that are not migrated, and so not compared.
    ``proved_forms``: columns whose form was not checked: every cell equals PostgreSQL's, whose type guarantees the form.
    """

    pg_count: Optional[int]
    bundle_count: Optional[int]
    sqlite_count: Optional[int]
    bytes: Optional[int] = None
    differences: int = 0
    cells: int = 0
    columns: int = 0
    dropped: List[str] = field(default_factory=list)
    seconds: float = 0.0
    proved_forms: int = 0

    @property
    def match(self) -> bool:
        """Whether all counts are equal and every cell was compared and equal."""
        counts = {
            count for count in (self.pg_count, self.bundle_count, self.sqlite_count) if count is not None
        }
        return (
            self.sqlite_count is not None
            and len(counts) == 1
            and not self.differences
            and self.cells == self.sqlite_count * self.columns
        )


@dataclass
class Changed:
    """Rows of one kind of change: all are counted, the first few named."""

    rows: int = 0
    ids: List[str] = field(default_factory=list)


@dataclass
class Changes:
    """How a table of PostgreSQL has changed since the export."""

    added: Changed = field(default_factory=Changed)
    removed: Changed = field(default_factory=Changed)
    changed: Changed = field(default_factory=Changed)

    def add(self, kind: str, row: str, listed: int) -> None:
        """Count a row that was "added", "removed" or "changed"; keep the names of the first few."""
        changed: Changed = getattr(self, kind)
        changed.rows += 1
        if changed.rows <= listed:
            changed.ids.append(row)

    def __bool__(self) -> bool:
        return any(changed.rows for changed in vars(self).values())

    def __str__(self) -> str:
        return ", ".join(
            "%d %s (%s%s)" % (found.rows, kind, ", ".join(found.ids), ", …" * (found.rows > len(found.ids)))
            for kind, found in vars(self).items()
            if found.rows
        )


class Database(NamedTuple):
    """The file that was checked. ``sha256``: of the file followed by its write-ahead log, if ``log_bytes`` is not 0.

    ``sha256`` is None if somebody wrote to the file during the check.
    """

    path: str
    bytes: int
    log_bytes: int
    sha256: Optional[str]


@dataclass(frozen=True)
class Report:
    """``validation_report.json``, as ``schema_design/validation_report.schema.json`` describes it."""

    database: Database
    strict: bool
    facts: Dict[str, Any]  # what stands in the JSON as it is
    validation_results: Dict[str, TableResult]
    findings: List[Finding]
    checks: List[CheckResult]
    source_changes: Dict[str, Changes]
    report_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def errors(self) -> List[str]:
        return [finding.message for finding in self.findings if self.is_error(finding)]

    @property
    def warnings(self) -> List[str]:
        return [finding.message for finding in self.findings if not self.is_error(finding)]

    @property
    def error_count(self) -> int:
        """The number of all errors, including those not listed."""
        return sum(finding.count for finding in self.findings if self.is_error(finding))

    @property
    def passed(self) -> bool:
        return not self.errors

    def rows(self) -> List[Tuple[object, ...]]:
        """Table, rows in PostgreSQL, bundle and SQLite, cells, differences and match, for the terminal."""
        return [
            (
                name,
                found.pg_count,
                found.bundle_count,
                found.sqlite_count,
                found.cells,
                found.differences,
                found.match,
            )
            for name, found in self.validation_results.items()
        ]

    def is_error(self, finding: Finding) -> bool:
        return finding.error or self.strict

    def as_json(self) -> Dict[str, Any]:
        made = {
            **self.facts,
            "report_version": 2,
            "report_id": self.report_id,
            "database": self.database._asdict(),
            "validation_results": {
                name: {**_members(result, _OF_TABLE), "seconds": round(result.seconds, 3)}
                for name, result in self.validation_results.items()
            },
            "errors": self.errors,
            "warnings": self.warnings,
            "overall_status": "PASS" if self.passed else "FAIL",
            "strict": self.strict,
            "findings": [
                {
                    "check": finding.check,
                    "level": "error" if self.is_error(finding) else "warning",
                    **_members(finding, _OF_FINDING),
                }
                for finding in self.findings
            ],
            "checks": [check.as_json() for check in self.checks],
            "source_changes": {
                table: {kind: vars(changed) for kind, changed in vars(changes).items()}
                for table, changes in self.source_changes.items()
            },
        }
        return {name: made[name] for name in _IN_ORDER if name in made}

    def text(self) -> str:
        text = msgspec.json.format(msgspec.json.encode(self.as_json())).decode("utf-8")
        return printable_json(text) + "\n"


_IN_ORDER = (
    *("report_version", "report_id", "timestamp", "database", "user_email", "user_id", "validation_results"),
    *("errors", "warnings", "overall_status", "against", "compared_with", "strict", "values_shown"),
    *("export_timestamp", "orphans_skipped", "cut", "brought", "findings", "checks", "source_changes"),
    *("bundle", "environment", "seconds"),
)
_OF_TABLE = (
    *("pg_count", "bundle_count", "sqlite_count", "match", "differences", "cells", "columns"),
    *("proved_forms", "dropped", "bytes"),
)
_OF_FINDING = ("message", "table", "row", "column", "count")


def _members(of: object, names: Sequence[str]) -> Dict[str, Any]:
    return {name: getattr(of, name) for name in names}


def require_writable(folder: Path) -> None:
    """Raises BundleError if a report cannot be written; call it before any work is done."""
    if folder.is_dir() and not os.access(str(folder), os.W_OK):
        raise _unwritable(folder / REPORT, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def withdraw(folder: Path) -> None:
    """Remove report and page of an earlier validation. The caller holds the folder's lock. Raises BundleError."""
    path, removed = folder / REPORT, False
    try:
        for path in (folder / REPORT, folder / PAGE):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                removed = True
    except OSError as error:
        raise _unwritable(path, error) from error
    if removed:
        files.sync_folder(folder)


def write(report: Report, folder: Path, called: str) -> List[Path]:
    """Write page and report to the data folder, or neither if that fails. The caller holds its lock.

    ``called``: ``Root.called``. Raises BundleError.
    """
    contents = {PAGE: page.render(report.as_json(), called), REPORT: report.text()}
    path = folder / REPORT
    try:
        with files.staged(folder) as staging:
            for name, text in contents.items():
                path = folder / name
                files.write_private(staging / name, text.encode("utf-8"))
        files.move_in(folder, last=(REPORT,))
    except OSError as error:
        raise _unwritable(path, error) from error
    return [folder / name for name in contents]


def _unwritable(path: Path, error: OSError) -> MigrationError:
    return BundleError(
        "cannot write the report %s: %s" % (path, error.strerror or error),
        "free some space, or choose another folder with --data-dir"
        if error.errno == errno.ENOSPC
        else "choose a folder that you may write with --data-dir",
    )
