"""Tests' folders and servers in memory, if there is room: nobody reads them again, so no test waits for a disk."""

from __future__ import annotations

import os
import shutil

from demo import postgres

MEMORY = "/dev/shm"  # Linux's file system in memory
ROOM = 6 * 10**9  # bytes that a run of all tests takes there at most


def _is_large_enough() -> bool:
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ROOM:
        return False
    return not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # a copy of the server's programs may go there


if _is_large_enough():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)  # for tmp_path
    postgres.TEMP_DIR = MEMORY
