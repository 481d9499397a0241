"""File systems that fill up or refuse to be written to, and runs without root's right to write everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator

import pytest


def obey_permissions() -> None:
    """Give up CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH at the next exec: root then needs a mode bit like anybody.

    https://man7.org/linux/man-pages/man7/capabilities.7.html
    """
    if os.geteuid() == 0:
        import ctypes

        PR_CAPBSET_DROP = 24
        for capability in (1, 2):
            if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError("cannot drop a capability")


@pytest.fixture(scope="session")
def permissions_count(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip where the system lets `ordinary` runs write to a read-only folder."""
    folder = tmp_path_factory.mktemp("read-only")
    folder.chmod(0o555)
    code = "import os, sys; sys.exit(os.access(sys.argv[1], os.W_OK))"
    try:
        writable = subprocess.run(
            [sys.executable, "-c", code, str(folder)], preexec_fn=obey_permissions
        ).returncode
    except subprocess.SubprocessError:
        pytest.skip("root cannot give up its right to write everywhere here")
    if writable:
        pytest.skip("this file system does not keep anybody from writing")


KIB = 1024
Mount = Callable[..., None]


@pytest.fixture()
def mount() -> Iterator[Mount]:
    """Mount a small tmpfs on a folder, or a file on another, or change a mode; unmounted at the end, whatever happens."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting takes root on Linux")
    mounted = []

    def mount_(
        place: Path, size: int | None = None, read_only: bool = False, bind: Path | None = None
    ) -> None:
        if bind is not None:
            command = ["mount", "--bind", str(bind), str(place)]
        elif place in mounted:
            command = ["mount", "-o", "remount,ro" if read_only else "remount,rw,size=%d" % size, str(place)]
        else:
            place.mkdir(parents=True, exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", "size=%d,mode=0755" % size, "tmpfs", str(place)]
        done = subprocess.run(command, stderr=subprocess.PIPE)
        if done.returncode != 0 and place not in mounted:
            pytest.skip("cannot mount here: " + done.stderr.decode("utf-8", "replace"))
        assert done.returncode == 0, done.stderr
        if place not in mounted:
            mounted.append(place)

    try:
        yield mount_
    finally:
        for place in reversed(mounted):
            subprocess.run(["umount", "-l", str(place)], check=True)
