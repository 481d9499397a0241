"""What a check is: a function from the evidence to what it found. All of them are in CHECKS of validate_migration.py."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

from migration.postgres.digests import Digest
from migration.sqlite.integrity import Found
from migration.validation.inputs import Context
from migration.validation.report import Changes, CheckResult, Finding, TableResult

# Findings that count for the check of their own name, whichever check makes them
OF_THEIR_OWN = ("counts", "isolation", "source", "additions")
OF_NO_CHECK = ("orphans",)  # what --orphans skip left out: a warning that no check is charged with


class Compared(NamedTuple):
    """What comparing one table gave.

    ``digest``: of the bundle's records, None if it is not needed. ``findings``: of contents, isolation and counts.
    """

    result: TableResult
    digest: Optional[Digest]
    findings: List[Finding]


class Evidence(NamedTuple):
    """What every check gets.

    ``tables``: table → result of its comparison; ``digests``: table → PostgreSQL's digest, for tables that may have
    changed since the export. ``integrity``: the result of SQLite's integrity check; None if the import has already
    checked integrity and references of this very file.
    """

    context: Context
    tables: Mapping[str, Compared]
    digests: "Mapping[str, Future[Digest]]"
    integrity: "Optional[Future[Found]]"


class Looked(NamedTuple):
    """The result of a check: how many things it looked at and what it found; ``note``: why it did not run.

    ``seconds``: None if it ran as part of comparing the contents. ``changes``: table → what PostgreSQL holds
    now that the bundle does not.
    """

    number: int = 0
    findings: Sequence[Finding] = ()
    seconds: Optional[float] = None
    changes: Mapping[str, Changes] = {}
    note: Optional[str] = None


class Check(NamedTuple):
    """``looked_at`` and ``unit``: what it looks at and what it counts, as the report words it."""

    name: str
    looked_at: str
    unit: str
    look: Callable[[Evidence], Looked]


def run(checks: Sequence[Check], evidence: Evidence) -> Dict[str, Looked]:
    """Check name → what it found. What SQLite cannot read is listed once, by the first check that met it."""
    looked: Dict[str, Looked] = {}
    refused: Set[str] = set()
    for check in checks:
        found = check.look(evidence)
        new = [each for each in found.findings if each.check != "integrity" or each.message not in refused]
        refused.update(each.message for each in new if each.check == "integrity")
        looked[check.name] = found._replace(findings=new)
    return looked


def results(
    checks: Sequence[Check], looked: Mapping[str, Looked], strict: bool, called: str
) -> List[CheckResult]:
    """The report's line for each check. ``strict``: warnings count as errors. ``called``: ``Root.called``."""
    errors, warnings = dict.fromkeys(looked, 0), dict.fromkeys(looked, 0)
    for name, found in looked.items():
        for finding in found.findings:
            counts = errors if finding.error or strict else warnings
            if finding.check not in OF_NO_CHECK:
                counts[finding.check if finding.check in OF_THEIR_OWN else name] += finding.count
    return [
        CheckResult(
            check.name,
            check.looked_at.replace("the user's", "the %s's" % called),
            check.unit,
            found.number,
            found.seconds,
            errors[check.name],
            warnings[check.name],
            found.note,
        )
        for check, found in zip(checks, looked.values())
    ]


def bundle_files(evidence: Evidence) -> Looked:
    """The bundle's files match its manifest. Opening the bundle has checked that; a damaged one is refused there."""
    export = evidence.context.export
    if export is None:
        return Looked(note="there is no bundle")
    return Looked(len(export.manifest.checksums), seconds=evidence.context.bundle_seconds)


def since(started: float) -> float:
    return time.perf_counter() - started
