"""Under which account the embedded servers run, and which folders that account reaches.

PostgreSQL refuses to run as root. So root lends the servers an unprivileged account; anybody else runs them as himself.
No folder that somebody else made ever has its mode or owner changed.
"""

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from config.stack.errors import StackError

UNPRIVILEGED = "nobody"
# A unix socket's path has room for 107 bytes (sun_path, unix(7)); the longest name put into it is `.s.PGSQL.5432.lock`.
SOCKET_PATH_BYTES_MAX = 107
SOCKET_NAME_BYTES_MAX = 18


class Switch(TypedDict, total=False):
    """The part of `subprocess.Popen`'s arguments that changes the account."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """Who a server runs as. `switch` is empty where that is who we are already."""

    name: str
    uid: int
    gid: int

    @property
    def switch(self) -> Switch:
        if os.geteuid() == self.uid:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def reaches(self, path: Path) -> bool:
        """Whether this account may enter the folder, or run the file, at `path`: the kernel is asked, not the modes."""
        if not self.switch:
            return os.access(path, os.X_OK)
        asked = subprocess.run(["/bin/sh", "-c", 'test -x "$1"', "sh", str(path)], **self.switch, cwd="/", check=False)
        return asked.returncode == 0

    def make_folder(self, path: Path) -> Path:
        """Make the private folder of a server (0700, its account's). One that exists must be that account's already.

        Raises: StackError where it belongs to somebody else."""
        if not path.exists():
            path.mkdir(mode=0o700, parents=True)
            os.chown(path, self.uid, self.gid)
        elif path.stat().st_uid != self.uid:
            owner = _name_of(path.stat().st_uid)
            raise StackError(
                f"{path} belongs to {owner}: start as {owner} or as root, or set DATA_DIR to another folder."
            )
        return path


def account_for(folder: Path) -> Account:
    """The account that runs a server on `folder`: its owner where root finds one, so that data outlives a `sudo`."""
    uid = os.geteuid()
    if uid == 0:
        owner = folder.stat().st_uid if folder.exists() else 0
        with contextlib.suppress(KeyError):
            entry = pwd.getpwuid(owner) if owner else pwd.getpwnam(UNPRIVILEGED)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
        raise StackError("PostgreSQL does not run as root and there is no account `nobody`: set DATABASE_URL instead.")
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise StackError(f"PostgreSQL wants a name for user id {uid}: add one, or set DATABASE_URL instead.") from None
    return Account(entry.pw_name, uid, os.getegid())


def services_folder(data: Path) -> Path:
    """Where the embedded servers keep their data: DATA_DIR, or for root a place that the unprivileged account reaches.

    The answer is the same at every start: once data is in the second place, that one is kept."""
    elsewhere = Path("/var/lib") / f"palimpsest-{_digest(data)}"
    if os.geteuid() != 0:
        return data
    if elsewhere.exists() or not account_for(data / "postgres").reaches(data):
        elsewhere.mkdir(mode=0o755, exist_ok=True)
        return elsewhere
    return data


def reachable_program(package: Path, *parts: str, account: Account) -> Path:
    """The program at `parts` inside the installed `package` folder, or in a copy of it that `account` reaches.

    The copy is for a virtual environment under a home that is closed to others (only root comes here). It takes the
    wheel's `<package>.libs` beside it along, where the programs look for their libraries."""
    if account.reaches(package.joinpath(*parts)):
        return package.joinpath(*parts)
    copy = Path("/var/lib") / f"palimpsest-programs-{_digest(package)}"
    version = str(package.stat().st_mtime_ns)
    stamp = copy / "version"
    if not stamp.exists() or stamp.read_text() != version:
        _copy_programs(package, copy, version)
    return copy.joinpath(package.name, *parts)


def _copy_programs(package: Path, copy: Path, version: str) -> None:
    """Put a whole copy in the place of an older one; another start that does the same is as good."""
    partial = Path(tempfile.mkdtemp(prefix="palimpsest-programs-", dir=copy.parent))
    unneeded = shutil.ignore_patterns("pginstall", "include", "__pycache__")  # the other major version, headers
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, partial / folder.name, symlinks=True, ignore=unneeded)
    (partial / "version").write_text(version)
    partial.chmod(0o755)
    shutil.rmtree(copy, ignore_errors=True)
    with contextlib.suppress(OSError):
        partial.rename(copy)
    shutil.rmtree(partial, ignore_errors=True)


def socket_folder(account: Account, directory: Path) -> Path:
    """A private folder (0700) for the sockets of the server whose data is in `directory`: the same at every start.

    In /tmp and not beside the data, whose path may be too long for a socket. Lower case only: parsers of URLs fold
    the case of a host, which is where a DATABASE_URL carries this path."""
    path = Path("/tmp") / f"palimpsest-{account.uid}-{_digest(directory)}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        os.chown(path, account.uid, account.gid)
    state = path.lstat()
    if path.is_symlink() or not path.is_dir() or state.st_uid != account.uid or state.st_mode & 0o077:
        # Somebody else took the name in a folder that all may write to: take one that nobody can guess.
        path = Path(tempfile.mkdtemp(prefix="palimpsest-", dir="/tmp"))
        os.chown(path, account.uid, account.gid)
    assert len(os.fsencode(path)) + 1 + SOCKET_NAME_BYTES_MAX <= SOCKET_PATH_BYTES_MAX  # fixed by the names above
    return path


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder that the servers' account reaches, removed at the end with all that is in it."""
    account = account_for(Path("/nonexistent"))
    bases = [base for base in (tempfile.gettempdir(), "/tmp", "/var/tmp") if account.reaches(Path(base))]
    if not bases:
        raise StackError(
            f"No temporary folder can be reached by the account {account.name}: set TMPDIR to one that can."
        )
    folder = Path(tempfile.mkdtemp(prefix="palimpsest scratch ", dir=bases[0]))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:12]


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"
