"""One user's finished files against the digests in the ledger: every file, nothing extra, and a sound database."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Set, Union, cast

from migration.bundle.manifest import MANIFEST, REPORTS, Manifest, read_manifest
from migration.errors import MigrationError
from migration.fleet import ledger, results
from migration.fleet.results import BACKUPS, BUNDLE, COMPANIONS, DATABASE, Made
from migration.sqlite.connecting import connected
from migration.sqlite.integrity import foreign_key_violations, integrity_problems

LOCK = ".lock"  # a process that was killed leaves it
LISTED = 3  # of SQLite's findings in one database
EXTRA = "is no file of the run"
CHANGED = "is not the file that the run made: its SHA256 differs"
NOT_NOTED = "database, manifest and reports, of which an earlier version of the suite noted no SHA256"
NO_REPORTS_NOTED = "the validation's reports, of which an earlier version of the suite noted no SHA256"
NO_MANIFEST = "the files of a bundle whose manifest cannot be read: nothing else says what they should be"
KEPT = "what is in the folder backups: databases that somebody had written to before a run replaced them"


class Difference(NamedTuple):
    """``file``: its path in the user's folder; "" for the folder. ``sha256``: of a database that is another's, perhaps."""

    file: str
    what: str
    sha256: Optional[str] = None


class Checked(NamedTuple):
    """What was found of one user; of the output folder where ``user_id`` is None.

    ``unproved``: what could not be checked, in words. ``files``, ``bytes``: read whole.
    """

    user_id: Optional[str]
    differences: List[Difference]
    unproved: List[str]
    files: int
    bytes: int


def checked(output: Path, user: Mapping[str, Any]) -> Checked:
    """Check the files of a user. ``user``: the ledger's row."""
    folder = results.folder_of(output, user["user_id"])
    look = Look(folder)
    if user["state"] != "done":
        failed = "failed (exit code %s)" % user["exit_code"]
        words = failed if user["state"] == "failed" else "is still to be migrated"
        differences = [Difference("", "was not checked: the user " + words)]
    elif os.path.islink(str(folder)) or not os.path.isdir(str(folder)):
        differences = [Difference("", "is missing")]
    else:
        differences = list(_differences(look, user["user_id"], ledger.made_of(user)))
    return Checked(user["user_id"], differences, look.unproved, look.files, look.bytes)


class Look:
    """Reads files of a folder whole, and counts them. ``unproved``: as in ``Checked``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unproved: List[str] = []
        self.files = self.bytes = 0

    def digest(self, file: str) -> Union[str, Difference]:
        """The SHA256 of a file, or the difference that it has none."""
        path = self.folder / file
        try:
            found = results.sha256_of(path)
            self.files += 1
            self.bytes += path.stat().st_size
            return found
        except FileNotFoundError:
            return Difference(file, "is missing")
        except OSError as error:
            return Difference(file, "is a symbolic link" if os.path.islink(str(path)) else _unreadable(error))

    def others(self, inside: str, known: Set[str]) -> Iterator[Difference]:
        """What is in the folder ``inside`` and not known."""
        try:
            with os.scandir(str(self.folder / inside)) as entries:
                names = sorted({entry.name for entry in entries} - known)
        except OSError as error:
            yield Difference(inside, _unreadable(error))
            return
        for name in names:
            yield Difference(
                os.path.join(inside, name),
                "lies beside the database: a program has it open, or was killed; its last changes may be in here"
                if name in {DATABASE + end for end in COMPANIONS}
                else EXTRA,
            )


def _unreadable(error: OSError) -> str:
    return "cannot be read: %s" % (error.strerror or error)


def _differences(look: Look, user_id: str, made: Optional[Made]) -> Iterator[Difference]:
    yield from look.others("", {DATABASE, BUNDLE, BACKUPS})
    if os.path.lexists(str(look.folder / BACKUPS)):
        look.unproved.append(KEPT)
    if made is None:
        look.unproved.append(NOT_NOTED)
    found = look.digest(DATABASE)
    if isinstance(found, Difference):
        yield found
    else:
        if made is not None and found != made.database:
            yield Difference(DATABASE, CHANGED, found)
        yield from _of_sqlite(look.folder / DATABASE)
    yield from _of_bundle(look, user_id, made)


def _of_sqlite(path: Path) -> Iterator[Difference]:
    """What SQLite finds in the database. It changes nothing, and makes no file beside it."""
    try:
        with contextlib.closing(connected(path.absolute(), "ro&immutable=1")) as connection:
            for problem in integrity_problems(connection)[:LISTED]:
                yield Difference(DATABASE, "integrity_check: " + problem)
            lost = foreign_key_violations(connection)
            for violation in itertools.islice(lost, LISTED):
                yield Difference(DATABASE, "foreign_key_check: %s %s: %s leads to no row of %s" % violation)
    except sqlite3.Error as error:
        yield Difference(DATABASE, "SQLite cannot read it: %s" % error)


def _of_bundle(look: Look, user_id: str, made: Optional[Made]) -> Iterator[Difference]:
    if os.path.islink(str(look.folder / BUNDLE)):
        yield Difference(BUNDLE, "is a symbolic link")
        return
    found = look.digest(os.path.join(BUNDLE, MANIFEST))
    if isinstance(found, Difference):
        yield found
        look.unproved.append(NO_MANIFEST)
    else:
        try:
            manifest = read_manifest(look.folder / BUNDLE)
        except MigrationError as error:
            yield Difference(os.path.join(BUNDLE, MANIFEST), error.message)
            look.unproved.append(NO_MANIFEST)
        else:
            yield from _of_files(look, user_id, made, manifest, found)
    reports = {name: look.digest(os.path.join(BUNDLE, name)) for name in REPORTS}
    lacking = [report for report in reports.values() if isinstance(report, Difference)]
    yield from lacking
    if made is not None and made.reports is None:
        look.unproved.append(NO_REPORTS_NOTED)
    elif made is not None and not lacking and results.of_all(cast(Dict[str, str], reports)) != made.reports:
        yield Difference(
            os.path.join(BUNDLE, REPORTS[0]),
            "or %s is not the run's: damaged, or of a later validation" % REPORTS[1],
        )


def _of_files(
    look: Look, user_id: str, made: Optional[Made], manifest: Manifest, digest: str
) -> Iterator[Difference]:
    """Each file of the bundle against its manifest, and the manifest against the ledger."""
    path = os.path.join(BUNDLE, MANIFEST)
    if manifest.user_id != user_id:
        yield Difference(path, "is that of user %s" % manifest.user_id)
    if made is not None and results.of_all({**manifest.checksums, MANIFEST: digest}) != made.bundle:
        yield Difference(path, CHANGED)
    for name, checksum in sorted(manifest.checksums.items()):
        if os.path.basename(name) != name:
            yield Difference(path, "names a file outside the bundle: %s" % name)
            continue
        found = look.digest(os.path.join(BUNDLE, name))
        if isinstance(found, Difference):
            yield found
        elif found != checksum.lower():
            yield Difference(os.path.join(BUNDLE, name), "does not match its SHA256 checksum in the manifest")
    yield from look.others(BUNDLE, {*manifest.checksums, MANIFEST, *REPORTS, LOCK})
