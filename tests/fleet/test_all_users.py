"""Every user at once: files, ledger and index, who is chosen, who fails, and what two runs make of one folder."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from demo import sample
from migration.errors import ExitCode, MigrationError
from migration.fleet import cluster, room
from migration.postgres import connecting
from migration.sqlite.schema import read_schema
from support.fleet import LEDGER, PERSONAL, Everybody, Output, ids, migrate_all
from support.migrations import settings_of
from support.places import ANNA, BRUNO, CARLA, DORA, SUITE, Place, contents
from support.servers import Database

# What a run makes


def test_each_user_has_database_bundle_and_reports(everybody: Everybody) -> None:
    assert set(everybody.ids) == set(sample.USERS)
    for user in everybody.ids.values():
        folder = everybody.output.folder / user
        assert {path.name for path in folder.iterdir()} == {"app.db", "bundle"}
        report = json.loads((folder / "bundle" / "validation_report.json").read_text(encoding="utf-8"))
        assert (report["overall_status"], report["user_id"]) == ("PASS", user)
        assert report["compared_with"] == ["bundle", "source"]
        assert (folder / "bundle" / "validation_report.html").is_file()


def test_nothing_else_is_left_in_the_folder(everybody: Everybody) -> None:
    ours = {"ledger.db", "summary.json", "summary.html"}
    assert {path.name for path in everybody.output.folder.iterdir()} == {*everybody.ids.values(), *ours}


def test_everything_is_for_the_owner_alone(everybody: Everybody) -> None:
    output = everybody.output.folder
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (output, *output.rglob("*"))}
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}


def test_bundle_and_rows_are_what_migrate_makes(everybody: Everybody, annas_run: Place) -> None:
    folder = everybody.output.folder / everybody.ids[ANNA]
    ours, theirs = contents(folder / "bundle"), contents(annas_run.data)
    assert set(ours) == set(theirs)
    for name in set(ours) - {"manifest.json", "validation_report.json", "validation_report.html"}:
        assert ours[name] == theirs[name], name
    manifests = [json.loads(files["manifest.json"]) for files in (ours, theirs)]
    assert {key for key in manifests[0] if manifests[0][key] != manifests[1][key]} <= {
        "export_timestamp",
        "snapshot",
    }
    assert rows(folder / "app.db") == rows(annas_run.app)


def rows(path: Path) -> list:
    """Everything in a database but the times at which its two singletons were made."""
    connection = sqlite3.connect("file:%s?immutable=1" % path, uri=True)
    try:
        tables = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY 1"
        ).fetchall()
        return [tables] + [
            connection.execute('SELECT * FROM "%s"' % name).fetchall()
            for name, sql in tables
            if sql.startswith("CREATE TABLE") and name != "user_preferences"
        ]
    finally:
        connection.close()


def test_ledger_has_a_row_for_each_user(everybody: Everybody, sample_database: Database) -> None:
    output = everybody.output
    assert output.states() == dict.fromkeys(everybody.ids.values(), ("done", 1, 1, 0))
    own = sample_database.rows(
        "SELECT u.id::text, 1 + (SELECT count(*) FROM user_preferences p WHERE p.user_id = u.id)"
        " + (SELECT count(*) FROM clients c WHERE c.user_id = u.id) FROM users u WHERE email = %s",
        DORA,
    )
    shared = sample_database.rows(
        "SELECT (SELECT count(*) FROM interpretations WHERE user_id IS NULL) + (SELECT count(*) FROM location_cache)"
    )
    assert output.query("SELECT user_id, rows FROM users WHERE user_id = ?", everybody.ids[DORA]) == [
        (own[0][0], own[0][1] + shared[0][0])
    ]
    for row in output.query(
        "SELECT started <= ended, export_seconds + import_seconds + validation_seconds > 0, bytes, error FROM users"
    ):
        assert row[:2] == (1, 1)
        assert row[2] > 200_000
        assert row[3] is None


def test_all_users_are_of_one_instant(everybody: Everybody) -> None:
    runs = everybody.output.query("SELECT snapshot, instant, exit_code, error FROM runs")
    assert len(runs) == 1
    assert runs[0][0] is not None
    assert runs[0][2:] == (0, None)
    assert len(set(everybody.output.query("SELECT snapshot FROM users"))) == 1


def test_index_is_the_ledger(everybody: Everybody) -> None:
    summary = everybody.output.summary
    assert summary["overall_status"] == "PASS"
    assert summary["totals"]["done"] == len(sample.USERS)
    assert [user["user_id"] for user in summary["users"]] == sorted(everybody.ids.values())
    for user in summary["users"]:
        assert (everybody.output.folder / user["folder"] / "app.db").is_file()
    page = (everybody.output.folder / "summary.html").read_text(encoding="utf-8")
    assert "The data of 4 users arrived" in page
    for user in everybody.ids.values():
        assert 'href="%s/app.db"' % user in page


def test_index_ledger_and_log_name_nobody(everybody: Everybody) -> None:
    folder = everybody.output.folder
    texts = [everybody.log, everybody.result.out, everybody.result.err]
    texts += [
        (folder / name).read_bytes().decode("latin-1") for name in (LEDGER, "summary.json", "summary.html")
    ]
    for text in texts:
        assert [word for word in PERSONAL if word in text] == []


def test_progress_and_numbers_are_shown(everybody: Everybody) -> None:
    assert "4 users to migrate" in everybody.result.err
    assert "2 worker processes on this machine" in everybody.result.err
    assert "needed in" in everybody.result.err
    assert "4 users, 0 failed" in everybody.result.out


def test_estimate_of_the_room_is_near_what_is_taken(
    everybody: Everybody, sample_database: Database, place: Place
) -> None:
    settings = settings_of(sample_database.url, place)
    with connecting.snapshot(settings) as db:
        needed = room.bytes_needed(db, settings, read_schema(settings.schema_path), {}, len(sample.USERS))
    ((took,),) = everybody.output.query("SELECT sum(bytes) FROM users")
    files = [path for path in everybody.output.folder.glob("*-*/**/*") if path.is_file()]
    assert took == sum(path.stat().st_size for path in files)
    assert took * 0.8 < needed < took * 1.5


# Who is chosen


def test_file_names_users_by_address_or_id(sample_database: Database, output: Output, tmp_path: Path) -> None:
    known = ids(sample_database)
    chosen = tmp_path / "users"
    chosen.write_text("# these\n\n%s\n  %s  \n%s\n" % (ANNA, known[DORA].upper(), ANNA), encoding="utf-8")
    done = migrate_all(output, sample_database.url, "--users-from", chosen, "--workers", 1)
    assert done.code == 0, done.err
    assert set(output.states()) == {known[ANNA], known[DORA]}


def test_only_active_users(sample_database: Database, output: Output) -> None:
    done = migrate_all(output, sample_database.url, "--where-active", "--workers", 1)
    assert done.code == 0, done.err
    known = ids(sample_database)
    assert set(output.states()) == {known[ANNA], known[BRUNO], known[CARLA]}


def test_unknown_users_are_named_before_anything_is_done(
    sample_database: Database, output: Output, tmp_path: Path
) -> None:
    chosen, log = tmp_path / "users", tmp_path / "log"
    chosen.write_text("%s\nnobody@example.com\n\nAnna@example.com\n" % ANNA, encoding="utf-8")
    done = migrate_all(output, sample_database.url, "--users-from", chosen, "--log-file", log)
    assert done.code == 3
    assert "error: users not found, in %s: 2\n" % chosen in done.err
    assert "  line 2: nobody@example.com\n  line 4: Anna@example.com\n" in done.err
    assert "@example.com" not in log.read_text(encoding="utf-8")
    assert output.states() == {}


@pytest.mark.parametrize(("text", "message"), [("# nobody\n", "names nobody"), (None, "cannot read")])
def test_file_that_names_nobody_is_refused(
    text: str | None, message: str, sample_database: Database, output: Output, tmp_path: Path
) -> None:
    chosen = tmp_path / "users"
    if text is not None:
        chosen.write_text(text, encoding="utf-8")
    done = migrate_all(output, sample_database.url, "--users-from", chosen)
    assert done.code == 2
    assert message in done.err


# Who fails


@pytest.fixture()
def annas_chart_dangles(database: Database) -> Iterator[Database]:
    database.execute(
        "ALTER TABLE charts DROP CONSTRAINT charts_client_id_fkey;"
        "UPDATE charts SET client_id = '00000000-0000-4000-8000-000000000000'"
        " WHERE id = (SELECT id FROM charts WHERE user_id = (SELECT id FROM users WHERE email = %s) LIMIT 1)",
        ANNA,
    )
    yield database


def test_failing_user_stops_no_other_and_is_listed(annas_chart_dangles: Database, output: Output) -> None:
    database = annas_chart_dangles
    anna = ids(database)[ANNA]
    done = migrate_all(output, database.url, "--workers", 1)
    assert done.code == 1
    assert "4 users to migrate" in done.err
    assert "3 users, 1 failed" in done.out
    assert anna in done.out
    states = output.states()
    assert states[anna] == ("failed", None, 1, 3)
    assert [state[0] for state in states.values()].count("done") == 3
    summary = output.summary
    assert (summary["overall_status"], summary["totals"]["failed"]) == ("FAIL", 1)
    ((error,),) = output.query("SELECT error FROM users WHERE state = 'failed'")
    assert "rows of the user refer to rows that are not exported: 1" in error
    what_to_do = "try: correct them in PostgreSQL, or leave these rows out with --orphans skip"
    assert error.splitlines()[-1] == what_to_do
    page = (output.folder / "summary.html").read_text(encoding="utf-8")
    assert "<p>%s</p>" % what_to_do in page
    assert not (output.folder / anna / "app.db").exists()

    before = {user: times(output, user) for user in states if user != anna}
    database.execute("UPDATE charts SET client_id = NULL")
    done = migrate_all(output, database.url, "--workers", 1, "--resume")
    assert done.code == 0, done.err
    assert "1 users to migrate" in done.err
    assert output.states()[anna] == ("done", 2, 2, 0)
    assert {user: times(output, user) for user in states if user != anna} == before
    assert [run["users"] for run in output.summary["runs"]] == [3, 1]

    os.unlink(str(output.folder / anna / "app.db"))
    done = migrate_all(output, database.url, "--workers", 1, "--resume")
    assert (done.code, output.states()[anna]) == (0, ("done", 3, 3, 0)), done.err


def times(output: Output, user: str) -> list:
    return [
        (output.folder / user / "app.db").stat().st_mtime_ns,
        output.query("SELECT * FROM users WHERE user_id = ?", user)[0][4:],
    ]


# Again


def test_next_run_replaces_everything_by_what_is_there_now(database: Database, output: Output) -> None:
    """The same command twice: a new instant, all users again."""
    assert migrate_all(output, database.url, "--workers", 1).code == 0
    user = ids(database)[ANNA]
    before = contents(output.folder / user / "bundle")
    database.execute("DELETE FROM session_notes")
    done = migrate_all(output, database.url, "--workers", 1)
    assert done.code == 0, done.err
    assert set(output.states().values()) == {("done", 2, 2, 0)}
    after = contents(output.folder / user / "bundle")
    changed = {name for name in before if before[name] != after[name]}
    reports = {"validation_report.json", "validation_report.html"}
    assert changed - reports == {"session_notes.json", "manifest.json"}


def test_each_user_can_have_a_snapshot_of_their_own(sample_database: Database, output: Output) -> None:
    done = migrate_all(output, sample_database.url, "--workers", 1, "--no-shared-snapshot")
    assert done.code == 0, done.err
    assert output.query("SELECT snapshot FROM runs") == [(None,)]
    assert set(output.states().values()) == {("done", 1, 1, 0)}
    assert output.query("SELECT count(*) FROM users WHERE snapshot IS NULL") == [(0,)]


# The command line


def test_dask_is_asked_for_when_it_is_needed(output: Output) -> None:
    code = (
        "import sys; sys.modules['distributed'] = sys.modules['dask'] = None;"
        "import migrate_all_users as script; sys.exit(script.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", code]
    shown = subprocess.run([*words, "--help"], cwd=str(SUITE), capture_output=True)
    assert shown.returncode == 0
    assert b"--output-dir DIR" in shown.stdout
    done = subprocess.run([*words, "--output-dir", str(output.folder)], cwd=str(SUITE), capture_output=True)
    assert done.returncode == 70
    assert done.stderr.decode().startswith(
        "error: dask, distributed are not installed\ntry: pip install -r requirements-cluster.txt "
    )
    assert not output.folder.exists()


@pytest.mark.parametrize("script", ["migrate", "export_from_postgres", "migrate_all_users"])
def test_script_starts_without_dask(script: str) -> None:
    code = "import sys, %s; sys.exit('dask' in sys.modules or 'distributed' in sys.modules)" % script
    assert subprocess.run([sys.executable, "-c", code], cwd=str(SUITE)).returncode == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-connections", "1"), "--max-connections is at least 2"),
        (("--workers", "0"), "is not a number from 1 up"),
        (("--workers", "1", "--scheduler", "tcp://127.0.0.1:1"), "not allowed with argument"),
        (("--worker-memory", "much"), "--worker-memory: 'much' is no size: a number with its unit, as 1GB"),
        (
            ("--worker-memory", "30MB"),
            "--worker-memory: '30MB' is too little: a worker takes 200 MB at least",
        ),
        (("--worker-memory", "-1"), "--worker-memory: '-1' is no size"),
        (("--user-timeout", "0"), "--user-timeout: '0' is not a number from 1 up"),
    ],
)
def test_wrong_option_is_refused(
    options: tuple, message: str, sample_database: Database, output: Output
) -> None:
    done = migrate_all(output, sample_database.url, *options)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_scheduler_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(MigrationError) as refused, cluster.remote(
        "tcp://127.0.0.1:1", "migration.fleet.worker"
    ):
        pass
    assert refused.value.message.startswith("cannot reach the scheduler at tcp://127.0.0.1:1: ")
    assert refused.value.exit_code == ExitCode.USAGE
