"""Hide a secret of our command line from the process list."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path


def hide(secret: str) -> None:
    """On Linux, overwrite ``secret`` with stars in the memory that ``ps`` reads; elsewhere do nothing.

    The kernel shows the memory between arg_start and arg_end, which belongs to the process.
    Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, fields 48 and 49
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        # field 2, the command's name, is in parentheses and may contain blanks
        fields = (
            Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        start, end = int(fields[45]), int(fields[46])
        if not 0 < start < end:
            return
        shown = ctypes.string_at(start, end - start)
        found = secret.encode("utf-8", "surrogateescape")
        place = shown.find(found)
        while place >= 0:
            ctypes.memset(start + place, ord("*"), len(found))
            place = shown.find(found, place + len(found))
