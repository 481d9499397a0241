"""A set of files that replaces an older one: whole or not at all, whatever ends the process."""

from __future__ import annotations

import errno
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict

import pytest

from migration import files, lock
from migration.errors import TargetError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

OLD = {"a": b"old a", "b": b"old b", "gone": b"old"}
NEW = {"a": b"new a", "b": b"new b", "c": b"new c"}
STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")  # audit events


def contents(folder: Path) -> Dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def replace(folder: Path) -> None:
    with files.staged(folder) as staging:
        for name, content in NEW.items():
            files.write_private(staging / name, content)
    files.move_in(folder, last=("b",), obsolete=("gone",))


def child(folder: Path, step: int, end: Callable[[], None]) -> int:
    """Replace in another process that calls ``end`` before step number ``step``; its wait status."""
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    done = 0

    def hook(event: str, arguments: Any) -> None:
        nonlocal done
        if event in STEPS:
            done += 1
            if done == step:
                end()

    code = 2
    try:
        sys.addaudithook(hook)
        replace(folder)
        code = 0
    except OSError:
        code = 1
    finally:
        os._exit(code)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("end", [kill, full])
def test_files_are_the_old_or_the_new_at_whichever_step_it_ends(
    end: Callable[[], None], tmp_path: Path
) -> None:
    found = []
    for step in range(1, 40):
        folder = tmp_path / str(step)
        folder.mkdir()
        for name, content in OLD.items():
            (folder / name).write_bytes(content)
        status = child(folder, step, end)
        obsolete = {"gone"} if files.is_complete(folder) else ()
        files.move_in(folder, last=("b",), obsolete=obsolete)
        found.append(contents(folder))
        assert found[-1] in (OLD, NEW)
        assert end is kill or not (folder / files.STAGING).exists()
        replace(folder)  # nothing that was left is in the way
        assert contents(folder) == NEW and [path for path in folder.iterdir() if path.is_dir()] == []
        if status == 0 and end is kill:
            break
    assert found[0] == OLD and found[-1] == NEW
    assert found == sorted(found, key=lambda content: content == NEW)  # one moment, before it the old
    assert len(found) > 10


def test_name_that_moves_last_is_there_only_with_the_others(tmp_path: Path) -> None:
    for step in range(1, 20):
        folder = tmp_path / str(step)
        folder.mkdir()
        child(folder, step, kill)
        if (folder / "b").exists():
            assert contents(folder) == NEW


def test_a_link_in_the_place_of_a_complete_set_is_not_followed(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "a").write_bytes(b"another's")
    (folder / files.COMPLETE).symlink_to(elsewhere)
    files.move_in(folder, last=())
    assert contents(elsewhere) == {"a": b"another's"} and contents(folder) == {}


@pytest.mark.skipif(os.name == "nt", reason="modes")
def test_private_file_is_its_owners_alone_and_a_link_is_not_written_through(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.write_private(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for act in (files.create_private, files.open_regular):
        with pytest.raises(OSError):
            act(tmp_path / "link")
    with pytest.raises(FileExistsError):
        files.create_private(tmp_path / "a", exclusive=True)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_pipe_or_folder_is_no_plain_file(tmp_path: Path) -> None:
    os.mkfifo(str(tmp_path / "pipe"))
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(files.NotPlainError):
            files.open_regular(path)


def test_lock_is_held_again_by_its_own_thread_alone_and_only_where_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / ".lock"

    def hold() -> bool:
        with lock.held(path, "it", TargetError):
            return path.exists()

    with lock.held(path, "it", TargetError, again=True):
        assert hold()
        assert path.exists()
        with ThreadPoolExecutor(1) as other, pytest.raises(TargetError, match="in use"):
            other.submit(hold).result()
    assert not path.exists()
    with lock.held(path, "it", TargetError), pytest.raises(TargetError, match="in use"):
        hold()
