"""Opening a bundle's files: whatever is wrong with one is reported as damage, with exit code 4."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import BinaryIO, Iterator

from migration import files
from migration.errors import BundleError, MigrationError


def damaged(
    message: str, hint: str = "export again, or bring back the whole folder from where it was copied"
) -> MigrationError:
    """The error to raise for a bundle that is damaged, incomplete or of another form."""
    return BundleError(message, hint)


@contextlib.contextmanager
def legible(name: str) -> Iterator[None]:
    """Report an OSError of the block as damage: the disk could not be read."""
    try:
        yield
    except OSError as error:
        raise damaged(
            "cannot read %s: %s" % (name, error.strerror or error),
            "the disk may be failing: bring the bundle from where it was copied, or export again to another disk",
        ) from error


def open_file(path: Path) -> BinaryIO:
    """Open a file of the bundle for reading. Raises MigrationError (exit 4), also for a link, a folder or a pipe."""
    try:
        return files.open_regular(path)
    except FileNotFoundError:
        raise damaged("the bundle is incomplete: %s is missing" % path.name) from None
    except files.NotPlainError:
        raise damaged("%s is not a plain file" % path.name) from None
    except OSError as error:
        if path.is_symlink():
            raise damaged("%s is a symbolic link; a bundle holds plain files" % path.name) from None
        raise damaged("cannot read %s: %s" % (path, error.strerror), "check the file's permissions") from None


def read_file(path: Path) -> bytes:
    """The whole content of a small file. Raises as ``open_file`` does."""
    with open_file(path) as file, legible(path.name):
        return file.read()
