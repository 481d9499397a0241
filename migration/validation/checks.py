"""What a check is: a function from the evidence to what it found."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

from migration.postgres.digests import Digest
from migration.sqlite.integrity import Found
from migration.validation.inputs import Context
from migration.validation.report import Changes, CheckResult, Finding, TableResult

# Findings that count for the check of their own name, whichever check comes across them
OF_THEIR_OWN = ("counts", "isolation", "source", "additions")
OF_NO_CHECK = ("orphans",)  # what --orphans skip left out: a warning that no check is charged with


class Compared(NamedTuple):
    """What comparing one table gave.

    ``digest``: of the bundle's records, None where nothing is compared with it. ``findings``: of contents, isolation and counts.
    """

    result: TableResult
    digest: Optional[Digest]
    findings: List[Finding]


class Evidence(NamedTuple):
    """What every check is handed.

    ``tables``: table → what comparing it gave; ``digests``: table → the digest that PostgreSQL makes, for the tables
    that may differ from the bundle's. ``integrity``: what SQLite finds as it looks through the file; None if the import
    has had it look through this very file, and checked its references.
    """

    context: Context
    tables: Mapping[str, Compared]
    digests: "Mapping[str, Future[Digest]]"
    integrity: "Optional[Future[Found]]"


class Looked(NamedTuple):
    """What a check found, of how many things; ``note``: why it was not done.

    ``seconds``: None where it was done while the contents were compared. ``changes``: table → what PostgreSQL holds
    now that the bundle does not.
    """

    number: int = 0
    findings: Sequence[Finding] = ()
    seconds: Optional[float] = None
    changes: Mapping[str, Changes] = {}
    note: Optional[str] = None


class Check(NamedTuple):
    """``looked_at`` and ``unit``: what it looks at and counts, in the report's words."""

    name: str
    looked_at: str
    unit: str
    look: Callable[[Evidence], Looked]


def run(checks: Sequence[Check], evidence: Evidence) -> Dict[str, Looked]:
    """Check name → what it found. What SQLite refuses to read is listed once, with the first check that met it."""
    looked: Dict[str, Looked] = {}
    refused: Set[str] = set()
    for check in checks:
        found = check.look(evidence)
        new = [each for each in found.findings if each.check != "integrity" or each.message not in refused]
        refused.update(each.message for each in new if each.check == "integrity")
        looked[check.name] = found._replace(findings=new)
    return looked


def results(checks: Sequence[Check], looked: Mapping[str, Looked], strict: bool) -> List[CheckResult]:
    """A line of the report for each check. ``strict``: warnings count as errors."""
    errors, warnings = dict.fromkeys(looked, 0), dict.fromkeys(looked, 0)
    for name, found in looked.items():
        for finding in found.findings:
            counts = errors if finding.error or strict else warnings
            if finding.check not in OF_NO_CHECK:
                counts[finding.check if finding.check in OF_THEIR_OWN else name] += finding.count
    return [
        CheckResult(
            *check[:3], found.number, found.seconds, errors[check.name], warnings[check.name], found.note
        )
        for check, found in zip(checks, looked.values())
    ]


def bundle_files(evidence: Evidence) -> Looked:
    """The bundle's files are those of its manifest: checked when it was opened, else there is no validation."""
    export = evidence.context.export
    if export is None:
        return Looked(note="there is no bundle")
    return Looked(len(export.manifest.checksums), seconds=evidence.context.bundle_seconds)


def since(started: float) -> float:
    return time.perf_counter() - started
