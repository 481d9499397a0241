"""The output folder of many users: nothing lands outside it, and what it or the machine lacks is said before anything begins."""

from __future__ import annotations

import contextlib
import os
import resource
import sqlite3
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from migration.errors import ExitCode, MigrationError
from migration.fleet import ledger, local_workers, origin
from migration.fleet.origin import Origin
from support.fleet import Output, command, ids, migrate_all
from support.mounts import Mount
from support.places import ANNA, BRUNO, CARLA, DORA, contents
from support.servers import Database

# Links


def test_links_in_the_place_of_users_folders_and_files_are_refused(
    sample_database: Database, output: Output, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    known = ids(sample_database)
    folders = {email: output.folder / user for email, user in known.items()}
    for folder in (outside, output.folder, folders[BRUNO], folders[CARLA], folders[DORA]):
        folder.mkdir()
    folders[ANNA].symlink_to(outside)
    (folders[BRUNO] / "bundle").symlink_to(outside)
    (folders[CARLA] / "app.db").symlink_to(outside / "app.db")
    (folders[DORA] / "app.db-wal").symlink_to(outside / "log")
    for name in ("summary.json", "summary.html"):  # replaced, not followed
        (output.folder / name).symlink_to(outside / name)
    done = migrate_all(output, sample_database.url, "--workers", 1)
    assert done.code == 1
    assert list(outside.iterdir()) == []
    for path in (
        folders[ANNA],
        folders[BRUNO] / "bundle",
        folders[CARLA] / "app.db",
        folders[DORA] / "app.db-wal",
    ):
        assert "%s is a symbolic link: files would land outside the output folder\n" % path in done.err
    assert not (output.folder / "summary.json").is_symlink()
    assert {state[:1] + state[3:] for state in output.states().values()} == {("failed", 5)}


@pytest.mark.parametrize("name", [".shared", "ledger.db", "ledger.db-journal", ".lock"])
def test_links_in_the_place_of_the_folders_own_files_are_refused(
    name: str, sample_database: Database, output: Output, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    output.folder.mkdir()
    (output.folder / name).symlink_to(outside if name == ".shared" else outside / "file")
    refused = migrate_all(output, sample_database.url, "--workers", 1)
    assert refused.code == 5
    assert "Traceback" not in refused.err
    assert str(output.folder / name) in refused.err
    assert list(outside.iterdir()) == []


# The ledger


def begin(book: ledger.Ledger) -> int:
    return book.begin(None, "now", "source", "18", Origin(origin.Database(None, "1", "x", None), "", ""))


@contextlib.contextmanager
def refusing(code: ExitCode, *words: str) -> Iterator[None]:
    with pytest.raises(MigrationError) as refused:
        yield
    assert refused.value.exit_code == code
    for word in words:
        assert word in "%s\n%s" % (refused.value.message, refused.value.hint)


def test_ledger_on_a_full_disk_says_so(tmp_path: Path, mount: Mount) -> None:
    folder = tmp_path / "full"
    mount(folder, size=1 << 20)
    with ledger.opened(folder / "ledger.db") as book:
        run = begin(book)
        with open(str(folder / "fill"), "wb") as fill, contextlib.suppress(OSError):
            while True:
                fill.write(b"x" * 65536)
        with refusing(
            ExitCode.TARGET,
            "no space left for ",
            "free some space, or choose another place with --output-dir",
        ):
            book.want(map(str, range(10000)), run, False)
        os.unlink(str(folder / "fill"))
        assert book.want(["1"], run, False) == 1


def test_ledger_on_a_read_only_disk_says_so(tmp_path: Path, mount: Mount) -> None:
    folder = tmp_path / "output"
    mount(folder, size=1 << 20)
    with ledger.opened(folder / "ledger.db"):
        pass
    mount(folder, read_only=True)
    with refusing(ExitCode.TARGET, "ledger.db cannot be written: ", "--output-dir"), ledger.opened(
        folder / "ledger.db"
    ) as book:
        begin(book)


def test_ledger_that_another_program_has_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "BUSY_SECONDS", 0.05)
    with ledger.opened(tmp_path / "ledger.db") as book:
        with contextlib.closing(sqlite3.connect(str(tmp_path / "ledger.db"), isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with refusing(ExitCode.TARGET, "ledger.db is open in another program", "close the application"):
                begin(book)
        assert begin(book) == 1


def test_damaged_ledger_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no ledger" * 1000)
    with refusing(
        ExitCode.TARGET, "ledger.db is not a sound SQLite database", "choose another file with --output-dir"
    ), ledger.opened(tmp_path / "ledger.db"):
        pass
    assert (tmp_path / "ledger.db").read_bytes() == b"no ledger" * 1000


# What the machine gives


def limited(files: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def test_too_few_open_files_are_said_before_anything_begins(
    sample_database: Database, output: Output
) -> None:
    words = command(output, sample_database.url, "--workers", 4)
    done = subprocess.run(words, capture_output=True, preexec_fn=limited(100), timeout=60)
    assert done.returncode == 70
    assert done.stderr.decode() == (
        "error: 4 workers need 140 open files, and no more than 100 are allowed\n"
        "try: raise the limit (ulimit -n), or start fewer with --workers\n"
    )
    assert not output.folder.exists()


def test_soft_limit_of_open_files_is_raised() -> None:
    was = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, was[1]))
        local_workers.require_resources(2)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 100
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, was)


def test_no_folder_for_temporary_files_is_said_before_anything_begins(
    sample_database: Database, output: Output
) -> None:
    done = migrate_all(output, sample_database.url, env={"DASK_TEMPORARY_DIRECTORY": "/proc/nowhere"})
    assert done.code == 70
    assert done.err.startswith("error: there is no folder for temporary files: ")
    assert "try: set TMPDIR to a folder that you may write, with some space in it\n" in done.err
    assert not output.folder.exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GB", 10**9),
        ("1.5 GiB", 3 << 29),
        ("300mb", 3 * 10**8),
        ("512MiB", 1 << 29),
        ("1T", 10**12),
        ("2000000000", 2 * 10**9),
    ],
)
def test_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert local_workers.bytes_of(text) == size


@pytest.mark.parametrize(
    "text", ["", "-1GB", "1e9", "1e400GB", "inf", "nan", "1GBB", "١GB", "199MB", "0", "9" * 400]
)
def test_what_is_no_size_or_too_little_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no size|is too little"):
        local_workers.bytes_of(text)


def test_nothing_of_a_refused_run_is_left(sample_database: Database, output: Output) -> None:
    output.folder.mkdir()
    refused = migrate_all(output, sample_database.url, "--worker-memory", "30MB")
    assert refused.code == 2
    assert contents(output.folder) == {}
