"""What the process list shows of this process."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path


def hide(secret: str) -> None:
    """Overwrite a command-line argument with stars where ``ps`` reads it, on Linux; elsewhere it stays.

    The kernel shows the memory between arg_start and arg_end, which belongs to the process.
    Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html, fields 48 and 49
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        # the second field, the command's name, is in parentheses and may hold blanks
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
