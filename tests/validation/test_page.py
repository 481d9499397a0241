"""The report as a page: the verdict first, all that was found, nothing that is private, nothing from outside."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import jsonschema
import pytest

from migration.validation import page
from migration.validation.report import PREFIXES, CheckResult
from validate_migration import CHECKS as CHECKS_DONE

SUITE = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((SUITE / "schema_design" / "validation_report.schema.json").read_text(encoding="utf-8"))
CHECKS: List[str] = SCHEMA["$defs"]["finding"]["properties"]["check"]["enum"]
EMAIL = "anna@example.com"
ROW = "0f6d3b1e-5a52-4a5e-9d0b-6f3f0c9d7a11"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;"

Report = Dict[str, Any]
VOID = {"meta"}  # of the elements without an end tag, all that the page has


# Reports, each as validate_migration.py could write it


def passing() -> Report:
    counts = {"clients": 12, "charts": 1018, "location_cache": 6}
    return {
        "report_version": 2,
        "report_id": "5d" * 16,
        "database": {"path": "/home/anna/app.db", "bytes": 454656, "log_bytes": 0, "sha256": "0b" * 32},
        "timestamp": "2025-11-15T11:37:51",
        "user_email": EMAIL,
        "user_id": "2be778e0-3cdb-4996-9650-6de623508853",
        "validation_results": {
            table: {
                "pg_count": rows,
                "bundle_count": rows,
                "sqlite_count": rows,
                "match": True,
                "differences": 0,
                "cells": rows * 10,
                "columns": 10,
                "proved_forms": 0,
                "dropped": ["user_id"] if table == "clients" else [],
                "bytes": rows * 250,
                "seconds": rows / 500,
            }
            for table, rows in counts.items()
        },
        "errors": [],
        "warnings": [],
        "overall_status": "PASS",
        "against": "bundle",
        "compared_with": ["bundle", "source"],
        "strict": False,
        "values_shown": False,
        "export_timestamp": "2025-11-15T09:30:00+00:00",
        "orphans_skipped": {},
        "findings": [],
        "checks": [
            check("bundle", 10, 0.01),
            check("contents", 10360, 2.5),
            check("counts", 3),
            check("integrity", note="the import looked at this very file"),
        ],
        "source_changes": {},
        "bundle": {table + ".json": {"sha256": "0a" * 32, "bytes": rows} for table, rows in counts.items()},
        "environment": {"python": "3.11.7", "postgresql": None, "database_bytes": 454656},
        "seconds": 75.5,
    }


def check(name: str, number: int = 0, seconds: Optional[float] = None, note: Optional[str] = None) -> Report:
    listed = next(check for check in CHECKS_DONE if check.name == name)
    return CheckResult(name, listed.looked_at, listed.unit, number, seconds, note=note).as_json()


def with_finding(
    report: Report,
    check: str,
    message: str,
    level: str = "error",
    table: Optional[str] = None,
    row: Optional[str] = None,
    column: Optional[str] = None,
    count: int = 1,
) -> Report:
    found = copy.deepcopy(report)
    found["findings"].append(
        {
            "check": check,
            "level": level,
            "message": message,
            "table": table,
            "row": row,
            "column": column,
            "count": count,
        }
    )
    for name in ("error", "warning"):
        found[name + "s"] = [each["message"] for each in found["findings"] if each["level"] == name]
    found["overall_status"] = "FAIL" if found["errors"] else "PASS"
    return found


def failing() -> Report:
    """One finding of each check, and one more at each level."""
    report = passing()
    for check in CHECKS:
        report = with_finding(report, check, "Found by %s." % check, table="clients", row=ROW, column="notes")
    report = with_finding(report, "contents", "Difference: clients: 1204 more", table="clients", count=1204)
    report = with_finding(report, "schema", "Schema: index mine is not in the schema file", "warning")
    report["source_changes"] = {
        "charts": {
            "added": {"rows": 3, "ids": ["added-1", "added-2"]},
            "removed": {"rows": 1, "ids": ["removed-1"]},
            "changed": {"rows": 1, "ids": ["changed-1"]},
        }
    }
    return report


def without_bundle() -> Report:
    report = failing()
    report.update(bundle=None, against="source", compared_with=["source"], export_timestamp=None)
    for table in report["validation_results"].values():
        table.update(bundle_count=None, bytes=None)
    return report


def offline() -> Report:
    report = {**passing(), "compared_with": ["bundle"]}
    for table in report["validation_results"].values():
        table["pg_count"] = None
    return report


def hostile() -> Report:
    report = passing()
    report["validation_results"][HOSTILE] = report["validation_results"]["clients"]
    report["environment"][HOSTILE] = HOSTILE
    report["orphans_skipped"][HOSTILE] = 1
    report["bundle"][HOSTILE] = report["bundle"]["clients.json"]
    report["source_changes"][HOSTILE] = {
        kind: {"rows": 1, "ids": [HOSTILE]} for kind in ("added", "removed", "changed")
    }
    report.update(timestamp=HOSTILE, user_id=HOSTILE, export_timestamp=HOSTILE)
    return with_finding(report, "contents", HOSTILE, table=HOSTILE, row=HOSTILE, column=HOSTILE)


def empty() -> Report:
    return {**passing(), "validation_results": {}, "bundle": {}, "environment": {}}


REPORTS = {
    "passing": passing(),
    "failing": failing(),
    "without bundle": without_bundle(),
    "offline": offline(),
    "hostile": hostile(),
    "empty": empty(),
}


# Reading pages


class Page(HTMLParser):
    """A page's elements with their attributes, and its words as a person sees them."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        jsonschema.validate(report, SCHEMA)
        self.html = page.render(report)
        self.elements: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.unclosed: List[str] = []
        self._words: List[str] = []
        self.feed(self.html)
        self.close()
        self.text = " ".join("".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), "an attribute twice: %s" % self.get_starttag_text()
        if tag not in VOID:
            self.unclosed.append(tag)

    def handle_startendtag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed, "</%s> closes nothing" % tag
        assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        if "body" in self.unclosed:
            self._words.append(data)

    def all(self, tag: str) -> List[Dict[str, Optional[str]]]:
        return [attributes for name, attributes in self.elements if name == tag]


def begins(report: Report) -> str:
    """The page's first words, without the sign before them."""
    return Page(report).text.split(" ", 1)[1]


# The verdict


def test_page_of_a_passing_report_says_so_before_anything_else() -> None:
    first = "Everything arrived Every cell was compared with the export bundle: 3 tables, 1,036 rows, 10,360 cells."
    assert begins(passing()).startswith(first)


def test_verdict_says_when_and_how_long() -> None:
    text = begins(passing()).split("Table by table")[0]
    assert "Checked 2025-11-15 11:37:51 in 1 min 16 s." in text
    assert "Exported from PostgreSQL 2025-11-15 09:30:00 UTC." in text


def test_pass_with_warnings_says_so() -> None:
    report = with_finding(passing(), "orphans", "3 rows left out", "warning", count=3)
    assert begins(report).startswith("No differences found, 3 warnings ")


def test_differences_that_are_not_listed_count_too() -> None:
    report = with_finding(passing(), "contents", "Difference: clients 1", table="clients", row="1")
    assert begins(report).startswith("1 difference found ")
    report = with_finding(report, "contents", "Difference: clients: 1204 more", table="clients", count=1204)
    assert begins(report).startswith("1,205 differences found ")
    assert "table clients 1,204 more" in Page(report).text


def test_changed_source_alone_is_no_difference() -> None:
    report = with_finding(passing(), "source", "Source has changed")
    text = begins(report)
    assert text.startswith("PostgreSQL has changed since the export ")
    assert "This is not a fault of the migration" in text
    assert "difference found" not in text and "differences found" not in text


def test_tables_whose_cells_were_not_compared_are_named() -> None:
    report = passing()
    report["validation_results"]["charts"]["cells"] = 0
    text = begins(report)
    assert text.startswith("No differences found Cells were compared")
    assert "though not those of charts:" in text
    for table in report["validation_results"].values():
        table["cells"] = 0
    assert begins(report).startswith("No differences found Rows were counted; no cell was compared:")


def test_columns_that_are_not_compared_are_named() -> None:
    text = Page(passing()).text
    assert "Not migrated, and so not compared, as config.py says: clients: user_id" in text


def test_rows_left_out_are_never_everything() -> None:
    report = {**passing(), "orphans_skipped": {"charts": 3, "clients": 1}}
    text = begins(report)
    assert text.startswith("No differences found")
    assert "(--orphans skip): 3 rows of charts, 1 row of clients." in text


def test_quoted_values_are_announced_at_the_top() -> None:
    warning = "This page quotes personal data."
    assert warning not in Page(failing()).text
    quoting = Page({**failing(), "values_shown": True}).text
    assert quoting.index(warning) < quoting.index("What to do next")


# The findings


def test_every_finding_is_on_the_page() -> None:
    report, text = failing(), Page(failing()).text
    for finding in report["findings"]:
        assert finding["message"] in text
    assert text.count("table clients row %s column notes" % ROW) == len(CHECKS)


def test_findings_stand_under_what_they_mean_and_what_to_do() -> None:
    text = Page(failing()).text
    for check in CHECKS:
        explanation = page.EXPLANATIONS[check]
        told = "%s %s %s" % (explanation.meaning, explanation.advice, explanation.command)
        assert "%s Found by %s." % (told, check) in text


@pytest.mark.parametrize("check", CHECKS)
def test_each_check_is_explained(check: str) -> None:
    assert all(page.EXPLANATIONS[check])


def test_nothing_else_is_explained_or_has_first_words() -> None:
    assert set(page.EXPLANATIONS) == set(PREFIXES) == set(CHECKS)


@pytest.mark.parametrize("command", [page.IMPORT, page.MIGRATE])
def test_commands_are_the_readmes(command: str) -> None:
    readme = (SUITE / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^%s(  |$)" % re.escape(command), readme, re.M)


def test_nobody_is_sent_to_a_bundle_that_is_not_there() -> None:
    assert page.IMPORT in Page(failing()).text
    assert page.IMPORT not in Page(without_bundle()).text


def test_changes_of_the_source_are_listed() -> None:
    text = Page(failing()).text
    changes = "charts 3 rows added: added-1 added-2 1 more 1 row removed: removed-1 1 row changed: changed-1"
    assert changes in text


def test_warning_among_errors_is_marked() -> None:
    assert "Schema: index mine is not in the schema file Warning" in Page(failing()).text


# The tables


def test_tables_show_what_was_counted() -> None:
    report = passing()
    report["validation_results"]["charts"].update(
        pg_count=1020, sqlite_count=1017, match=False, differences=2
    )
    text = Page(report).text
    assert "charts 1,020 1,018 1,017 10,180 2 ✗ no" in text
    assert "Total 1,038 1,036 1,035 10,360 2 ✗ no" in text
    assert "clients 3.0 kB 0.02 s" in text


def test_checks_say_what_they_looked_at_and_what_they_found() -> None:
    text = Page(passing()).text
    assert "contents cells, each against its record 10,360 cells 2.50 s ✓ ok" in text
    assert "counts rows of each table 3 tables with contents ✓ ok" in text
    assert "not done: the import looked at this very file" in text
    report = passing()
    report["checks"] = [{**check("references", 11, 0.001), "errors": 2, "warnings": 1, "result": "errors"}]
    assert (
        "references rows that foreign keys lead to 11 foreign keys < 0.01 s 2 errors 1 warning"
        in Page(report).text
    )


def test_counts_of_the_bundle_do_not_pass_for_postgresqls() -> None:
    text = Page(offline()).text
    assert "PostgreSQL was not asked." in text
    assert "charts not asked 1,018 1,018" in text
    assert "Total not asked 1,036 1,036" in text


def test_missing_table_is_no_empty_table() -> None:
    report = passing()
    report["validation_results"]["clients"].update(sqlite_count=None, match=False)
    assert "clients 12 12 no table" in Page(report).text
    assert "Everything arrived" not in Page(report).text


def test_longest_bar_is_the_largest_value() -> None:
    widths = [rect["width"] for rect in Page(passing()).all("rect")]
    assert widths == ["1.2%", "1.2%", "100.0%", "100.0%", "0.6%", "0.6%"]


def test_files_of_the_bundle_are_recorded() -> None:
    assert "clients.json 12 " + "0a" * 32 in Page(passing()).text


# Private, harmless, alone


@pytest.mark.parametrize("name", REPORTS)
def test_page_is_well_formed(name: str) -> None:
    parsed = Page(REPORTS[name])
    assert parsed.html.startswith("<!DOCTYPE html>\n")
    assert parsed.unclosed == []
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = [str(attributes["href"])[1:] for attributes in parsed.all("a")]
    labels = [attributes["aria-labelledby"] for attributes in parsed.all("section")]
    assert set(targets + labels) <= set(ids)


@pytest.mark.parametrize("name", REPORTS)
def test_email_address_is_not_on_the_page(name: str) -> None:
    assert EMAIL not in Page(REPORTS[name]).html


@pytest.mark.parametrize("name", sorted(set(REPORTS) - {"hostile"}))
def test_page_asks_for_nothing_from_outside(name: str) -> None:
    html = Page(REPORTS[name]).html.replace("http-equiv", "")
    assert not re.search(r"http|src=|<script|url\(|@import|javascript:", html, re.I)


def test_page_forbids_itself_all_but_its_own_style() -> None:
    policies = [m["content"] for m in Page(passing()).all("meta") if "http-equiv" in m]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]


def test_hostile_text_is_shown_as_text() -> None:
    parsed = Page(hostile())
    assert "<script" not in parsed.html and "<img" not in parsed.html
    assert {tag for tag, _ in parsed.elements} <= {tag for tag, _ in Page(failing()).elements}
    names = {name for _, attributes in parsed.elements for name in attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "style")]
    # Message, table, row and column of the finding; table twice, environment twice, file, user, time of check and
    # export thrice and twice, left out, changed table and its three ids, table with a dropped column.
    assert parsed.text.count(HOSTILE) == 4 + 2 + 2 + 1 + 1 + 2 + 2 + 1 + 4 + 1


@pytest.mark.parametrize(
    "character, shown",
    [
        ("\0", r"\x00"),
        ("\x1b", r"\x1b"),
        ("\n", r"\n"),
        ("\x7f", r"\x7f"),
        ("\x9b", r"\x9b"),
        ("\u202e", r"\u202e"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("é", "é"),
        ("♈", "♈"),
    ],
)
def test_what_cannot_be_seen_is_written_out(character: str, shown: str) -> None:
    message = "before%safter"
    parsed = Page(with_finding(passing(), "json", message % character, table=message % character))
    assert parsed.text.count(message % shown) == 2
    assert parsed.html.encode("utf-8")


# For everybody


def test_page_can_be_heard() -> None:
    parsed = Page(failing())
    assert parsed.all("html") == [{"lang": "en"}]
    assert len(parsed.all("h1")) == 1
    assert parsed.all("table") and len(parsed.all("caption")) == len(parsed.all("table"))
    assert {th.get("scope") for th in parsed.all("th")} == {"col", "row"}
    assert all(svg["aria-hidden"] == "true" for svg in parsed.all("svg"))
    roles = {"th": ("columnheader", "rowheader"), "td": ("cell",), "tr": ("row",), "table": ("table",)}
    for tag, fitting in roles.items():  # rows as cards lose them otherwise
        assert all(attributes.get("role") in fitting for attributes in parsed.all(tag))


def test_text_stands_out_in_light_and_in_dark() -> None:
    """Contrast of 4.5 at least: https://www.w3.org/TR/WCAG21/#contrast-minimum"""
    schemes = re.findall(r":root \{(.*?)\}", Page(passing()).html, re.S)
    assert len(schemes) == 2
    for scheme in schemes:
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", scheme))
        papers = [color for name, color in colors.items() if name.endswith(("page", "paper"))]
        assert len(papers) == 5
        for name in ("text", "quiet", "link", "pass", "note", "fail"):
            for paper in papers:
                assert contrast(colors[name], paper) >= 4.5, (name, paper)


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# What it takes


def python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=str(SUITE), stdout=subprocess.PIPE, check=True)
    return done.stdout.decode("utf-8").strip()


def test_templates_cost_nothing_before_a_page_is_made() -> None:
    assert python("-c", "import sys, migration.validation.page; print('jinja2' in sys.modules)") == "False"
