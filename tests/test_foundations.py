"""The modules that every room builds on, each by itself: sql, printing, errors, settings."""

from __future__ import annotations

import errno
import pickle
import sqlite3

import psycopg2
import pytest

from migration.errors import (
    BundleError,
    ExitCode,
    MigrationError,
    ResourceError,
    TargetError,
    error_of,
    lacking,
)
from migration.printing import LISTS, SHOWN, brief, printable
from migration.sql import literal, quote, texts
from support.migrations import settings_of
from support.places import Place
from support.servers import Database

ODD = ["plain", "", 'a"b', "it's", "back\\slash", "\\'; DROP TABLE t; --", "zwei\nlines", "ü 🙂", "%s {0}"]


def test_quoted_name_is_the_name_in_both_databases(sample_database: Database) -> None:
    names = [name for name in ODD if name]
    columns = ", ".join("1 AS " + quote(name) for name in names)
    assert [
        column[0] for column in sqlite3.connect(":memory:").execute("SELECT " + columns).description
    ] == names
    with psycopg2.connect(sample_database.url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT " + columns)
        assert [column.name for column in cursor.description] == names


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_literal_is_the_text_whatever_the_server_takes_backslashes_for(
    conforming: str, sample_database: Database
) -> None:
    with psycopg2.connect(sample_database.url) as connection, connection.cursor() as cursor:
        cursor.execute("SET standard_conforming_strings = " + conforming)
        cursor.execute("SELECT ARRAY[%s], %s, %s" % (", ".join(map(literal, ODD)), texts(ODD), texts([])))
        assert cursor.fetchone() == (ODD, ODD, [])


def test_what_cannot_be_seen_is_shown_as_an_escape() -> None:
    assert printable("ü 🙂 \\") == "ü 🙂 \\"
    assert printable("\x1b[2J\u202e\n") == "\\x1b[2J\\u202e\\n"
    assert printable("list:\n  one\nmore", LISTS) == "list:\n  one\\nmore"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * SHOWN, "x" * SHOWN),
        ("x" * (SHOWN + 1), "x" * SHOWN + "… (%d characters)" % (SHOWN + 1)),
        ("a\nb", "a\\nb"),
    ],
)
def test_long_value_is_cut_and_its_length_said(text: str, shown: str) -> None:
    assert brief(text) == shown


@pytest.mark.parametrize("kind", MigrationError.__subclasses__())
def test_error_comes_whole_from_another_process(kind: type) -> None:
    error = kind("message", "hint", private_hint="private", logged="logged")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind is error_of(error.exit_code)
    assert vars(back) == vars(error)
    assert back.exit_code in set(ExitCode) - {ExitCode.DONE, ExitCode.DIFFERENCES, ExitCode.INTERRUPTED}


def test_each_error_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in MigrationError.__subclasses__()]
    assert sorted(codes) == sorted(set(codes)) == [2, 3, 4, 5, 70]
    assert BundleError("as it is").logged == "as it is"


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (MemoryError(), "no memory"),
        (OSError(errno.ENOMEM, ""), "no memory"),
        (ImportError("x.so: failed to map segment from shared object"), "no memory"),
        (RuntimeError("can't start new thread"), "no further thread"),
        (OSError(errno.EMFILE, ""), "no further open file"),
        (OSError(errno.ENFILE, ""), "no further open file"),
        (OSError(errno.EAGAIN, ""), "no further process"),
        (OSError(errno.ENOSPC, ""), None),
        (ImportError("No module named x"), None),
        (RuntimeError("another"), None),
        (ValueError("can't start new thread"), None),
    ],
)
def test_lack_of_resources_is_told_from_other_errors(error: Exception, missing: str | None) -> None:
    found = lacking(error)
    if missing is None:
        assert found is None
    else:
        assert isinstance(found, ResourceError)
        assert found.message == "the machine has too few resources: " + missing


@pytest.mark.parametrize(("cause", "found"), [(MemoryError(), True), (OSError(errno.EAGAIN, ""), False)])
def test_lack_within_another_error_counts_but_a_lock_does_not(cause: Exception, found: bool) -> None:
    with pytest.raises(TargetError) as caught:
        raise TargetError("cannot be written") from cause
    assert (lacking(caught.value) is not None) is found


def test_settings_do_not_show_a_password(place: Place) -> None:
    made = settings_of("postgresql://reader:secret-word@there/db", place, fallback_password="secret-word")
    assert made.postgres["password"] == "secret-word"
    assert "secret-word" not in repr(made)
