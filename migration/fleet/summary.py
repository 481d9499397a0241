"""The index of a run of all users: ``summary.json`` and ``summary.html``, made from the ledger. Users are named by id only.

Both are written user by user, so memory does not grow with the number of users.
"""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List

from migration import files
from migration.cli import terminal
from migration.fleet import ledger, results, sealed
from migration.fleet.ledger import Ledger
from migration.printing import plural, printable_json
from migration.templates import template

SUMMARY = "summary.json"
PAGE = "summary.html"
TEMPLATE = Path(__file__).resolve().with_name("summary.html.j2")
SHOWN = 5000  # users on the page: failed ones first
LISTED = 50  # failed users on the terminal; all are in the summary


def write(book: Ledger, output: Path, called: str = "user") -> List[Path]:
    """Write both files to ``output``, or neither if that fails, when the ledger is complete.

    ``called``: ``Root.called``. The caller holds the folder's lock. Raises TargetError.
    """
    about = _about(book)
    fill_page = functools.partial(_fill_page, called=called)
    with results.errors(output / SUMMARY):
        with files.staged(output) as staging:
            for name, fill in ((PAGE, fill_page), (SUMMARY, _fill_json)):
                with files.create_private(staging / name) as file:
                    fill(file, about, book)
                    if name == SUMMARY:
                        file.flush()
                        others = {ledger.NAME: output / ledger.NAME, PAGE: staging / PAGE}
                        file.write(sealed.seal(staging / SUMMARY, others))
        files.move_in(output, last=(SUMMARY,))
    return [output / SUMMARY, output / PAGE]


def _about(book: Ledger) -> Dict[str, Any]:
    totals = book.totals()
    complete = totals["users"] and not totals["pending"]
    coverage = book.coverage()
    differs = coverage is not None and not coverage["complete"]
    status = "FAIL" if totals["failed"] or differs else "PASS" if complete else "INCOMPLETE"
    return {
        "summary_version": 1,
        "timestamp": ledger.now(),
        "overall_status": status,
        "totals": totals,
        "runs": [{name: run[name] for name in run if name != "coverage"} for run in book.runs()],
        "coverage": coverage,
    }


def _users(book: Ledger, **of: Any) -> Iterator[Dict[str, Any]]:
    for user in book.users(**of):
        del user["wanted"], user["table_rows"]
        for name in ("cut", "brought"):  # only where config.py asks for it
            if user[name] is None:
                del user[name]
        user["folder"] = results.folder_of(Path(), user["user_id"]).name
        yield user


def _fill_json(file: BinaryIO, about: Dict[str, Any], book: Ledger) -> None:
    """One user a line; all but the end."""
    head = printable_json(json.dumps(about, indent=2, ensure_ascii=False))
    file.write(head[: -len("\n}")].encode("utf-8") + b',\n  "users": [')
    separator = "\n    "
    for user in _users(book):
        file.write((separator + printable_json(json.dumps(user, ensure_ascii=False))).encode("utf-8"))
        separator = ",\n    "
    file.write(b"\n  ]")


def _fill_page(file: BinaryIO, about: Dict[str, Any], book: Ledger, called: str) -> None:
    failed = _users(book, state="failed")
    others = (user for user in _users(book) if user["state"] != "failed")
    template(TEMPLATE).stream(
        about=about,
        users=itertools.islice(itertools.chain(failed, others), SHOWN),
        shown=SHOWN,
        called=called,
        several_called=plural(called),
    ).dump(file, encoding="utf-8")


def show(book: Ledger, run: int, output: Path, called: str) -> None:
    """Print the numbers of this run, and the users who failed."""
    done, before, failed = book.migrated(run), book.done_before(run), book.count(run, "failed")
    rows = [("done", *done), ("done before", *before), ("failed", failed, None, None)]
    several = plural(called)
    title = "Migrated to %s: %d %s, %d failed" % (output, done.users, several, failed)
    if before.users:
        title += "; %d done before, their files verified" % before.users
    else:
        del rows[1]
    terminal.summary(title, ("state", several, "rows", "bytes"), rows)
    if failed:
        listed = list(itertools.islice(book.users(run, "failed"), LISTED))
        terminal.summary(
            "Failed" if failed <= LISTED else "Failed, the first %d of %d" % (LISTED, failed),
            (called, "exit code", "error"),
            [(row["user_id"], str(row["exit_code"] or ""), row["error"]) for row in listed],
            even_if_quiet=True,
        )
