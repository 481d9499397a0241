"""The validation report as an HTML page, for the owner of the data and for the operator.

The page loads nothing: no network, no fonts, no scripts. ``report.html.j2`` is its template.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from migration.templates import number, several, template

TEMPLATE = Path(__file__).resolve().with_name("report.html.j2")

IMPORT = "python migrate.py --skip-export"
MIGRATE = "python migrate.py --user-email you@example.com"


class Explanation(NamedTuple):
    """What a check's findings are called, what they mean, and what to do: advice that leads to a command."""

    title: str
    meaning: str
    advice: str
    command: str


# Every check that a finding can name, most important first.
EXPLANATIONS: Mapping[str, Explanation] = {
    "isolation": Explanation(
        "Data of another user came along",
        "Rows that belong to somebody else are where only this user's should be.",
        "Hand neither the database nor the bundle to anybody. If it is found again after this, "
        "correct in PostgreSQL whose rows these are. First, export and import again:",
        MIGRATE,
    ),
    "integrity": Explanation(
        "The database file is damaged",
        "SQLite finds faults in the file itself, as after a failing disk or a copy that broke off. "
        "What it holds is not to be relied on.",
        "Close the application, move the file aside with the -wal and -shm files beside it, and build it anew:",
        IMPORT,
    ),
    "schema": Explanation(
        "The database is not built as planned",
        "A table, a column, an index, a trigger or a view is missing, or is not the one of the schema file.",
        "If nobody changed the structure on purpose, build the database anew; "
        "what the application has added to it is dropped by that:",
        IMPORT,
    ),
    "counts": Explanation(
        "Rows are missing, or there are too many",
        "A table of the new database does not hold as many rows as it should.",
        "If nobody has worked with the new database yet, import again:",
        IMPORT,
    ),
    "contents": Explanation(
        "Values differ, or could not be compared",
        "A row or a cell of the new database is not what it was compared with: it was changed later, "
        "or it did not arrive as it should. "
        "A warning names what could not be compared; importing again does not change that.",
        "If nobody has worked with the new database yet, import again:",
        IMPORT,
    ),
    "references": Explanation(
        "Rows refer to rows that are not there",
        "A row without the one that it belongs to, for example: the application may not find what belongs together.",
        "Import again:",
        IMPORT,
    ),
    "json": Explanation(
        "Structured data cannot be read",
        "Data or a list in JSON is not in the form that the application reads.",
        "If it is found again after this, PostgreSQL holds it so: correct it there and migrate anew. "
        "First, import again:",
        IMPORT,
    ),
    "types": Explanation(
        "Values are not in the form agreed on",
        "A date, a time, a number, a coordinate or an identifier is not what its column is for, "
        "or a value is missing where there must be one.",
        "If it is found again after this, PostgreSQL holds it so: correct it there and migrate anew. "
        "First, import again:",
        IMPORT,
    ),
    "user": Explanation(
        "Password or preferences are not the user's",
        "The account or the settings are not as they were: signing in may fail, or what depends on settings may look different.",
        "If neither was changed in the new database on purpose, import again:",
        IMPORT,
    ),
    "additions": Explanation(
        "The database holds more than was migrated",
        "There are tables, columns, indexes, triggers, rows or numbers that the schema file does not make. "
        "This alone says of nothing that it is missing.",
        "If the application or you have added them, leave them: an import would drop them. "
        "If nobody has, find out who wrote to the database before you hand it on.",
        IMPORT,
    ),
    "orphans": Explanation(
        "Rows were left out",
        "They refer to rows that are not this user's, and the export was told to leave such rows out "
        "(--orphans skip). PostgreSQL still holds them.",
        "If they are missed, correct in PostgreSQL what they refer to and migrate anew:",
        MIGRATE,
    ),
    "source": Explanation(
        "PostgreSQL has changed since the export",
        "Somebody went on working there. This is not a fault of the migration: "
        "the export holds everything as it was at its moment.",
        "To take the changes over, export and import again:",
        MIGRATE,
    ),
}


class Verdict(NamedTuple):
    """``kind``: pass, note or fail."""

    kind: str
    words: str


class Group(NamedTuple):
    """A check's findings. ``errors`` and ``warnings`` count all, listed or not; ``tally``: the same in words.

    ``command``: empty if there is nothing to run.
    """

    check: str
    explanation: Explanation
    command: str
    findings: Sequence[Mapping[str, Any]]
    errors: int
    warnings: int
    tally: str


def render(report: Mapping[str, Any], called: str = "user") -> str:
    """The page of a report as ``Report.as_json`` gives it. ``called``: ``Root.called``."""
    fill = template(TEMPLATE).render
    tables = report["validation_results"]
    groups = _groups(report, called)
    page: str = fill(
        report={key: value for key, value in report.items() if key != "user_email"},
        verdict=_verdict(report, groups),
        groups=groups,
        called=called,
        totals={
            name: _total([table[name] for table in tables.values()])
            for name in (
                "pg_count",
                "bundle_count",
                "sqlite_count",
                "cells",
                "columns",
                "proved_forms",
                "differences",
                "bytes",
                "seconds",
            )
        },
        largest={
            name: max((table[name] or 0 for table in tables.values()), default=0)
            for name in ("bytes", "seconds")
        },
        not_compared=_not_compared(report),
        more=_more,
    )
    return page


def _groups(report: Mapping[str, Any], called: str) -> List[Group]:
    by_check: Dict[str, List[Mapping[str, Any]]] = {}
    for finding in report["findings"]:
        by_check.setdefault(finding["check"], []).append(finding)
    if report["source_changes"]:
        by_check.setdefault("source", [])
    groups = []
    for check in sorted(by_check, key=list(EXPLANATIONS).index):
        explanation, findings = _in_words_of(called, EXPLANATIONS[check]), by_check[check]
        errors, warnings = _stand_for(findings, "error"), _stand_for(findings, "warning")
        changed = sum(
            rows["rows"] for changes in report["source_changes"].values() for rows in changes.values()
        )
        if check == "source" and changed:
            tally = several(changed, "row")
        else:
            counted = ((errors, "error"), (warnings, "warning"))
            tally = ", ".join(several(count, noun) for count, noun in counted if count)
        stale = report["bundle"] is None or report["against"] == "source"
        command = _in_words_of(called, EXPLANATIONS["source"]).command if stale else explanation.command
        if check == "additions" and not errors:  # no reason for a rebuild
            command = ""
        groups.append(Group(check, explanation, command, findings, errors, warnings, tally))
    return groups


def _in_words_of(called: str, explanation: Explanation) -> Explanation:
    if called == "user":
        return explanation
    title, meaning, advice = (re.sub(r"\buser\b", lambda _: called, text) for text in explanation[:3])
    command = "python migrate.py --user NAME" if explanation.command == MIGRATE else explanation.command
    return Explanation(title, meaning, advice, command)


def _stand_for(findings: Sequence[Mapping[str, Any]], level: str) -> int:
    return sum(max(finding["count"], 1) for finding in findings if finding["level"] == level)


def _verdict(report: Mapping[str, Any], groups: Sequence[Group]) -> Verdict:
    """The headline. It says that everything arrived only if there is no finding at all."""
    warnings = sum(group.warnings for group in groups)
    differences = sum(group.errors for group in groups if group.check != "source")
    if differences:
        return Verdict("fail", several(differences, "difference") + " found")
    if report["overall_status"] != "PASS":
        return Verdict("note", EXPLANATIONS["source"].title)
    if warnings:
        return Verdict("note", "No differences found, " + several(warnings, "warning"))
    matched = all(table["match"] for table in report["validation_results"].values())
    if groups or report["orphans_skipped"] or report.get("cut") or _not_compared(report) or not matched:
        return Verdict("note", "No differences found")
    return Verdict("pass", "Everything arrived")


def _not_compared(report: Mapping[str, Any]) -> List[str]:
    """Tables that have rows, but whose cells were not all compared."""
    count = "bundle_count" if report["against"] == "bundle" else "pg_count"
    return [
        name
        for name, table in report["validation_results"].items()
        if table["cells"] < (table[count] or 0) * table["columns"]
    ]


def _more(finding: Mapping[str, Any], findings: Sequence[Mapping[str, Any]]) -> str:
    """How many unlisted findings a finding stands for, in words."""
    listed = any(other is not finding and other["table"] == finding["table"] for other in findings)
    return "%s %s" % (number(finding["count"]), "more" if listed else "in all")


def _total(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
