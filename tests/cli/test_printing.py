"""What is printed, logged and reported: printable whatever the data holds, and no exit code depends on who reads it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration.cli.log import _Printable
from migration.printing import LINES, LISTS, printable, printable_json
from support.places import ANNA, SCHEMA, SUITE, Place, copy_suite, extended_schema
from support.runs import Run
from support.servers import NOWHERE, Database
from support.sqlite_files import change

# Clears the screen, sets a title, rings, goes back to the line's begin, and turns the text's direction (also by C1 codes)
EVIL = "\x1b[2J\x1b]0;owned\x07\rerror: all is well\x9b1m\u202e\u2066\n  fake@example.com\nerror: none"
SHOWN = r"\x1b[2J\x1b]0;owned\x07\rerror: all is well\x9b1m\u202e\u2066\n  fake@example.com\nerror: none"


def assert_harmless(*texts: str) -> None:
    for text in texts:
        for line in text.split("\n"):
            assert line.isprintable(), ascii(line)


@given(st.text())
def test_everything_that_is_shown_can_be_seen(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(text, LINES).replace("\n", "").isprintable()
    assert printable(text, LISTS).replace("\n  ", "").isprintable()
    assert not text.isprintable() or printable(text) == text
    shown = printable_json(json.dumps(text, ensure_ascii=False))
    assert shown.isprintable()
    assert json.loads(shown) == text


def test_another_user_s_address_cannot_command_the_terminal(
    database: Database, place: Place, run: Run
) -> None:
    database.execute("UPDATE users SET email = %s WHERE email = 'bruno@example.com'", EVIL)
    log = place.folder / "log"
    done = run(
        "migrate.py", "--user-email", "ana@example.com", "--postgres-url", database.url, "--log-file", log
    )
    assert done.code == 3
    assert "\n  %s\n" % SHOWN in done.err
    assert_harmless(done.err, log.read_text(encoding="utf-8"))
    named = run("migrate.py", "--user-email", EVIL + "x", "--postgres-url", database.url)
    assert "error: user not found: " + SHOWN[:30] in named.err
    assert_harmless(named.err)


def test_names_and_keys_cannot_command_terminal_log_and_reports(
    database: Database, place: Place, run: Run
) -> None:
    database.execute(
        'CREATE TABLE "%s" (id text PRIMARY KEY, user_id uuid REFERENCES users)' % "tab\x1b[31mle\u202e"
    )
    log = place.folder / "log"
    options = ("--user-email", ANNA, "--postgres-url", database.url, "--log-file", log, "--verbose")
    done = run("migrate.py", *options)
    assert done.code != 0
    assert r"tab\x1b[31mle\u202e" in done.err
    assert_harmless(done.err, done.out, log.read_text(encoding="utf-8"))


def test_values_and_keys_in_findings_are_printable(database: Database, place: Place, run: Run) -> None:
    database.execute("CREATE TABLE marks (id text PRIMARY KEY, user_id uuid REFERENCES users, note text)")
    database.execute(
        "INSERT INTO marks SELECT %s, id, %s FROM users WHERE email = %s", "key" + EVIL, "note" + EVIL, ANNA
    )
    suite = copy_suite(place.folder / "suite")
    config = suite / "config.py"
    config.write_text(
        config.read_text(encoding="utf-8").replace(
            "\nTABLES = (",
            '\nfrom migration.model import owned_by\nTABLES = (Table("marks", owned_by("user_id")),',
        ),
        encoding="utf-8",
    )
    schema = extended_schema(place.folder, "CREATE TABLE marks (id TEXT PRIMARY KEY, note TEXT);")
    common = ("--user-email", ANNA, "--postgres-url", database.url, "--schema-path", schema)
    assert run("migrate.py", *common, suite=suite).code == 0
    database.execute("UPDATE marks SET note = %s", "other" + EVIL)
    log = place.folder / "log"
    for more in ((), ("--show-values",), ("--json",), ("--against", "source", "--show-values")):
        done = run("validate_migration.py", *common, "--log-file", log, *more, suite=suite, code=1)
        assert r"key\x1b[2J" in done.err
        report = (place.data / "validation_report.json").read_text(encoding="utf-8")
        page = (place.data / "validation_report.html").read_text(encoding="utf-8")
        assert_harmless(done.err, done.out, log.read_text(encoding="utf-8"), report, page)
        assert "key" in report


def test_log_lines_and_lists_stay_lines(capsys: pytest.CaptureFixture) -> None:
    formatter = _Printable("%(message)s")
    record = logging.makeLogRecord({"msg": "the first:\n  one\n  two\rthree\nfour"})
    assert formatter.format(record) == "the first:\n  one\n  two\\rthree\\nfour"


# Whoever reads


def shell(command: str, *options: object, env: "Dict[str, str]" = {}) -> "subprocess.CompletedProcess[bytes]":  # noqa: B006
    """Run ``command``, where ``"$RUN" "$SUITE/"migrate.py "$@"`` is a run with the options."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", *map(str, options)],
        env={**os.environ, "RUN": sys.executable, "SUITE": str(SUITE), **env},
        capture_output=True,
        timeout=60,
    )


UNREAD = ["2>/dev/full", "2>&-", "2> >(exec true)", "2>/dev/full >/dev/full", "2>&- >&- <&-"]


@pytest.mark.parametrize("redirection", UNREAD)
def test_failure_that_nobody_can_read_has_its_exit_code(redirection: str, place: Place) -> None:
    options = ["--user-email", ANNA, "--postgres-url", NOWHERE, "--data-dir", place.data, "--verbose"]
    done = shell('sleep 0.1; "$RUN" "$SUITE/"export_from_postgres.py "$@" ' + redirection, *options)
    assert done.returncode == 3, done.stderr


def test_wrong_option_that_nobody_can_read_has_its_exit_code() -> None:
    assert shell('"$RUN" "$SUITE/"import_to_sqlite.py --no 2>/dev/full').returncode == 2


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2> >(exec true)"])
def test_bug_that_nobody_can_read_has_its_exit_code(redirection: str) -> None:
    code = "import argparse, config; from migration.cli import options, running;"
    code += "running.run(lambda args: 1 // 0, options.parser('').parse_args([])) == 70 or 1 // 0"
    done = shell('cd "$SUITE"; "$RUN" -c "$@" ' + redirection, code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "> >(exec true)"])
def test_result_that_cannot_be_printed_is_an_error(
    redirection: str, sample_database: Database, migrated: Place
) -> None:
    places = ["--data-dir", migrated.data, "--sqlite-path", migrated.app, "--schema-path", SCHEMA]
    from_there = ["--postgres-url", sample_database.url]
    command = 'sleep 0.1; "$RUN" "$SUITE/"%s "$@" ' + redirection
    for script, options in (
        ("migrate.py --dry-run", ["--user-email", ANNA, *from_there, *places]),
        ("validate_migration.py --json --offline", places),
    ):
        done = shell(command % script, *options)
        assert done.returncode == 2, done.stderr
        assert b"error: the result cannot be printed to standard output: " in done.stderr
        assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr


def test_verdict_comes_before_a_report_that_cannot_be_printed(migrated: Place) -> None:
    change(migrated.app, "DELETE FROM session_notes")
    places = ["--data-dir", migrated.data, "--sqlite-path", migrated.app, "--schema-path", SCHEMA]
    done = shell('"$RUN" "$SUITE/"validate_migration.py --json --offline "$@" >/dev/full', *places)
    assert done.returncode == 1
    assert b"error: the result cannot be printed to standard output: No space left on device" in done.stderr


def test_help_that_cannot_be_printed_is_an_error() -> None:
    done = shell('"$RUN" "$SUITE/"migrate.py --help >/dev/full')
    assert done.returncode == 2
    assert b"error: the result cannot be printed" in done.stderr


# The log file


def test_log_file_that_is_full_is_said_once(bundle: Path, run: Run) -> None:
    done = run("import_to_sqlite.py", "--log-file", "/dev/full", code=0)
    assert done.err.count("warning: the log file /dev/full cannot be written: No space left on device") == 1


def test_named_pipe_that_nobody_reads_is_not_waited_for(bundle: Path, place: Place, run: Run) -> None:
    os.mkfifo(str(place.folder / "pipe"))
    done = run("import_to_sqlite.py", "--log-file", place.folder / "pipe", code=2)
    assert "error: cannot write the log file" in done.err


def test_named_pipe_with_a_reader_gets_the_log(bundle: Path, place: Place, run: Run) -> None:
    pipe = place.folder / "pipe"
    os.mkfifo(str(pipe))
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        assert run("import_to_sqlite.py", "--log-file", pipe).code == 0
        assert reader.stdout is not None
        assert b"imported clients" in reader.stdout.read()
