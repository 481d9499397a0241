"""--verify DIR: whatever happened to a finished output is found and named, without PostgreSQL and without a change."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

import migrate_all_users
from migration import lock
from migration.errors import TargetError
from migration.fleet import ledger, summary
from support.fleet import Everybody
from support.mounts import Mount
from support.places import ANNA, BRUNO, SUITE, contents


class Verified(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def differences(self) -> list[str]:
        """As the log has them: user and file, and what."""
        return re.findall(r"^\S+ ERROR   (.*)", self.err, re.M)

    @property
    def last(self) -> str:
        return self.out.splitlines()[-1]


class Done(NamedTuple):
    output: Path
    anna: str
    bruno: str

    def of(self, user: str) -> Path:
        return self.output / user

    def change_ledger(self, sql: str) -> None:
        """As if a run had left it so."""
        with ledger.opened(self.output / "ledger.db") as book:
            with contextlib.closing(sqlite3.connect(str(self.output / "ledger.db"))) as connection:
                connection.execute(sql)
                connection.commit()
            summary.write(book, self.output)


@pytest.fixture()
def done(everybody: Everybody, tmp_path: Path) -> Done:
    """A copy to damage."""
    shutil.copytree(str(everybody.output.folder), str(tmp_path / "output"))
    return Done(tmp_path / "output", everybody.ids[ANNA], everybody.ids[BRUNO])


@pytest.fixture()
def verify(capsys: pytest.CaptureFixture[str]) -> Callable[..., Verified]:
    def verified(output: Path, *options: str) -> Verified:
        code = migrate_all_users.main(["--verify", str(output), *options])
        return Verified(code, *capsys.readouterr())

    return verified


def flip(path: Path, position: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.write_bytes(content)


def test_intact_output_is_read_whole_and_left_as_it_is(everybody: Everybody) -> None:
    output = everybody.output.folder
    before = contents(output)
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES", "PG"))}
    command = [sys.executable, str(SUITE / "migrate_all_users.py"), "--verify", str(output)]
    done = subprocess.run(command, capture_output=True, env={**alone, "PGHOST": "/nowhere"}, cwd="/")
    assert (done.returncode, done.stderr) == (0, b"")
    files = len([path for path in output.rglob("*") if path.is_file()]) - 1  # summary.json proves itself
    assert done.stdout.decode().startswith("%s: INTACT (4 users, %d files, " % (output, files))
    assert contents(output) == before


def test_output_on_read_only_media(
    everybody: Everybody, tmp_path: Path, mount: Mount, verify: Callable[..., Verified]
) -> None:
    mount(tmp_path / "media", size=64 << 20)
    shutil.copytree(str(everybody.output.folder), str(tmp_path / "media" / "output"))
    mount(tmp_path / "media", read_only=True)
    found = verify(tmp_path / "media" / "output")
    assert (found.code, found.err) == (0, "")


def test_each_file_is_named_if_a_byte_of_it_changes_or_it_is_gone(
    done: Done, verify: Callable[..., Verified]
) -> None:
    of_anna = [path for path in done.of(done.anna).rglob("*") if path.is_file()]
    of_output = [path for path in done.output.iterdir() if path.is_file()]
    assert len(of_anna) > 10
    for path in (*of_anna, *of_output):
        content = path.read_bytes()
        changes: tuple[Callable[[], object], ...] = (lambda: flip(path), lambda: path.unlink())  # noqa: B023
        for change in changes:
            change()
            found = verify(done.output)
            assert found.code == (4 if path.name == "ledger.db" else 1), path
            told = found.err if found.code == 4 else "\n".join(found.differences)
            assert path.name in told
            assert path in of_output or "user %s: " % done.anna in told
            assert done.bruno not in found.err
            path.write_bytes(content)
    assert verify(done.output).code == 0


def test_ledger_with_any_byte_changed_is_damaged(done: Done, verify: Callable[..., Verified]) -> None:
    path = done.output / "ledger.db"
    for position in range(0, path.stat().st_size, 331):
        flip(path, position)
        found = verify(done.output)
        assert found.code == 4, (position, found.err)
        assert "error: the ledger %s is damaged" % path in found.err
        assert "try: bring it back from another copy of the folder" in found.err
        flip(path, position)


def test_index_with_any_byte_of_its_end_changed_is_damaged(
    done: Done, verify: Callable[..., Verified]
) -> None:
    path = done.output / "summary.json"
    size = path.stat().st_size
    for position in range(size - 300, size, 7):
        flip(path, position)
        found = verify(done.output)
        assert found.code == 1, (position, found.err)
        assert found.differences[0].startswith("summary.json is damaged: ")
        flip(path, position)


def swap(done: Done) -> None:
    one, two = (done.of(user) / "app.db" for user in (done.anna, done.bruno))
    between = done.output.with_name("between")
    os.replace(str(one), str(between))
    os.replace(str(two), str(one))
    os.replace(str(between), str(two))


def dangle(done: Done) -> None:
    with contextlib.closing(sqlite3.connect(str(done.of(done.anna) / "app.db"))) as connection:
        connection.execute(
            "UPDATE session_notes SET id = 'first', client_id = 'nobody' WHERE rowid = (SELECT min(rowid) FROM session_notes)"
        )
        connection.commit()


CHANGED = "is not the file that the run made: its SHA256 differs"
EXTRA = "is no file of the run"
DAMAGES: list[tuple[str, Callable[[Done], object], list[str]]] = [
    ("databases swapped", swap, [
        "user {anna}: app.db %s; it is the one of user {bruno}" % CHANGED, "user {bruno}: app.db %s; it is the one of user {anna}" % CHANGED]),
    ("bundle of another", lambda done: shutil.copytree(str(done.of(done.bruno) / "bundle"), str(done.of(done.anna) / "bundle"), dirs_exist_ok=True), [
        "user {anna}: bundle/manifest.json is that of user {bruno}",
        "user {anna}: bundle/manifest.json " + CHANGED,
        "user {anna}: bundle/validation_report.json or validation_report.html is not the run's: damaged, or of a later validation"]),
    ("renamed", lambda done: os.rename(str(done.of(done.anna)), str(done.output / "anna")), [
        "user {anna}: the folder is missing", "anna is no user's folder; its bundle is of user {anna}"]),
    ("gone", lambda done: shutil.rmtree(str(done.of(done.anna))), ["user {anna}: the folder is missing"]),
    ("log beside", lambda done: (done.of(done.anna) / "app.db-wal").write_bytes(b"x" * 100), [
        "user {anna}: app.db-wal lies beside the database: a program has it open, or was killed; its last changes may be in here"]),
    ("extra", lambda done: (done.of(done.anna) / "notes.txt").touch(), ["user {anna}: notes.txt " + EXTRA]),
    ("extra in bundle", lambda done: (done.of(done.anna) / "bundle" / "more.json").touch(), ["user {anna}: bundle/more.json " + EXTRA]),
    ("extra folder", lambda done: (done.output / "more").mkdir(), ["more " + EXTRA]),
    ("left over", lambda done: (done.output / ".shared").mkdir(), [".shared was left by a run that was killed"]),
    ("link", lambda done: (done.output / "more").symlink_to("/"), ["more " + EXTRA]),
    ("reference that leads nowhere", dangle, [
        "user {anna}: app.db " + CHANGED, "user {anna}: app.db foreign_key_check: session_notes first: client_id leads to no row of clients"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES]
)
def test_damage_is_named(
    change: Callable[[Done], object], expected: list[str], done: Done, verify: Callable[..., Verified]
) -> None:
    change(done)
    before = contents(done.output)
    found = verify(done.output)
    assert found.code == 1
    assert found.differences == [words.format(anna=done.anna, bruno=done.bruno) for words in expected]
    assert contents(done.output) == before


def test_user_who_is_not_done_is_a_difference(done: Done, verify: Callable[..., Verified]) -> None:
    done.change_ledger("UPDATE users SET state = 'failed', exit_code = 3 WHERE user_id = '%s'" % done.anna)
    done.change_ledger("UPDATE users SET state = 'pending' WHERE user_id = '%s'" % done.bruno)
    found = verify(done.output, "--quiet")
    assert sorted(found.differences) == sorted(
        [
            "user %s: the folder was not checked: the user failed (exit code 3)" % done.anna,
            "user %s: the folder was not checked: the user is still to be migrated" % done.bruno,
        ]
    )
    assert found.last.startswith("%s: DIFFERENT: 2 differences, of 2 users (4 users, " % done.output)


def test_what_an_earlier_version_did_not_note_is_said(done: Done, verify: Callable[..., Verified]) -> None:
    done.change_ledger("UPDATE users SET reports_sha256 = NULL")
    done.change_ledger("UPDATE users SET database_sha256 = NULL WHERE user_id = '%s'" % done.anna)
    index = done.output / "summary.json"
    index.write_bytes(index.read_bytes().partition(b',\n  "files": ')[0] + b"\n}\n")
    (done.of(done.anna) / "backups").mkdir()
    found = verify(done.output)
    assert (found.code, found.err) == (0, "")
    assert sorted(found.out.splitlines()[:-1]) == [
        "not checked, of 1 user: database, manifest and reports, of which an earlier version of the suite noted no SHA256",
        "not checked, of 1 user: what is in the folder backups: databases that somebody had written to before a run replaced them",
        "not checked, of 3 users: the validation's reports, of which an earlier version of the suite noted no SHA256",
        "not checked: the ledger itself and summary.html: an earlier version of the suite noted no SHA256 of them",
    ]
    assert found.last.startswith("%s: INTACT, so far as it could be checked (4 users" % done.output)
    flip(done.of(done.anna) / "bundle" / "clients.json")
    assert (
        "clients.json does not match its SHA256 checksum in the manifest"
        in verify(done.output).differences[0]
    )
    with contextlib.closing(sqlite3.connect(str(done.of(done.anna) / "app.db"))) as connection:
        connection.executescript(
            "CREATE TABLE t (x); INSERT INTO t VALUES (NULL); PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql = 'CREATE TABLE t (x NOT NULL)' WHERE name = 't'"
        )
    unsound = "user %s: app.db integrity_check: NULL value in t.x" % done.anna
    assert unsound in verify(done.output).differences


def test_run_that_was_killed_is_said(done: Done, verify: Callable[..., Verified]) -> None:
    with contextlib.closing(sqlite3.connect(str(done.output / "ledger.db"))) as connection:
        connection.execute("UPDATE runs SET ended = NULL")
        connection.commit()
    found = verify(done.output)
    assert (found.code, found.differences) == (
        1,
        ["ledger.db says that the last run did not end: --resume goes on"],
    )
    assert "not checked: the ledger's SHA256" in found.out
    (done.output / "ledger.db-journal").write_bytes(b"half a transaction")
    found = verify(done.output)
    assert found.code == 4
    assert "ledger.db-journal is beside the ledger: a run was killed while it wrote" in found.err


def test_folder_without_a_ledger_or_in_use_is_refused(
    done: Done, tmp_path: Path, verify: Callable[..., Verified]
) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        found = verify(folder)
        assert found.code == 4
        assert "error: no ledger: %s" % (folder / "ledger.db") in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    with lock.held(done.output / ".lock", "", TargetError):
        found = verify(done.output)
    assert found.code == 5
    assert "is in use by another migration" in found.err


@pytest.mark.parametrize(
    "option",
    ["--output-dir=x", "--resume", "--postgres-url=x", "--workers=2", "--worker-memory=2GB", "--strict"],
)
def test_options_of_a_run_are_refused(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        migrate_all_users.main(["--verify", str(tmp_path), option])
    assert refused.value.code == 2
    assert "--verify starts no run: leave %s away" % option.partition("=")[0] in capsys.readouterr().err
