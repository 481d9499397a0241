"""The validation report: what was compared, what was found, and the verdict."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from migration.bundle import create_private, sync
from migration.errors import ExitCode, MigrationError

REPORT = "validation_report.json"


@dataclass
class TableResult:
    """Rows of one table in each place; None where it was not looked at. ``seconds``: its checks took."""

    pg_count: Optional[int]
    bundle_count: Optional[int]
    sqlite_count: Optional[int]
    seconds: float = 0.0

    @property
    def match(self) -> bool:
        counts = {
            count for count in (self.pg_count, self.bundle_count, self.sqlite_count) if count is not None
        }
        return self.sqlite_count is not None and len(counts) == 1


@dataclass
class Report:
    """``validation_report.json``; the keys up to ``overall_status`` are for whoever reads it by program."""

    timestamp: str
    user_email: str
    user_id: str
    validation_results: Dict[str, TableResult] = field(default_factory=dict)
    errors: List[str] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)
    orphans_skipped: Dict[str, int] = field(default_factory=dict)
    export_timestamp: Optional[str] = None
    compared_with: List[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.errors

    def as_json(self) -> Dict[str, Any]:
        return {
            "timestamp": self.timestamp,
            "user_email": self.user_email,
            "user_id": self.user_id,
            "validation_results": {
                name: {
                    "pg_count": result.pg_count,
                    "bundle_count": result.bundle_count,
                    "sqlite_count": result.sqlite_count,
                    "match": result.match,
                    "seconds": round(result.seconds, 3),
                }
                for name, result in self.validation_results.items()
            },
            "errors": self.errors,
            "warnings": self.warnings,
            "overall_status": "PASS" if self.passed else "FAIL",
            "compared_with": self.compared_with,
            "export_timestamp": self.export_timestamp,
            "orphans_skipped": self.orphans_skipped,
        }


def write(report: Report, folder: Path) -> Path:
    """Write the report to the data folder, whole or not at all. Raises MigrationError (exit 4)."""
    path = folder / REPORT
    partial = folder / (".%s.partial" % REPORT)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with create_private(partial) as file:
            file.write((json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n").encode("utf-8"))
            sync(file)
        os.replace(str(partial), str(path))
    except OSError as error:
        raise MigrationError(
            "cannot write the report %s: %s" % (path, error.strerror or error),
            hint="free some space, or choose another folder with --data-dir",
            exit_code=ExitCode.BUNDLE,
        ) from error
    finally:
        with contextlib.suppress(OSError):  # replaced by now, or interrupted
            partial.unlink()
    return path
