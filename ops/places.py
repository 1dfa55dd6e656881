"""Where Runwire keeps its data on a machine, as which user its servers run, and the error that says what is wrong."""

import errno
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SHARED_ROOT = Path("/var/lib/runwire")

# A socket's whole path must fit into sockaddr_un: 108 bytes on Linux and 104 on macOS, the final NUL included.
SOCKET_PATH_MAX = 107 if sys.platform == "linux" else 103
_LONGEST_SOCKET_NAME = ".s.PGSQL.5432"
# Only such paths go into server settings and URLs, so nothing there needs quoting.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


class ServiceError(Exception):
    """Something about this machine keeps Runwire's servers from running: what it is, and what may be done."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """The user that the embedded servers run as."""

    name: str
    uid: int
    gid: int

    @property
    def ids(self) -> tuple[int, int] | None:
        """(uid, gid) to change to; None when this process is that user already."""
        return None if self.uid == os.geteuid() else (self.uid, self.gid)


def service_user() -> ServiceUser:
    """Oneself; for root, who may not run PostgreSQL, the first unprivileged user that exists. Users are never made."""
    if os.geteuid() != 0:
        return ServiceUser(_name_of(os.geteuid()), os.geteuid(), os.getegid())
    for name in ("runwire", "postgres", "nobody"):
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return ServiceUser(name, entry.pw_uid, entry.pw_gid)
    raise ServiceError(
        "PostgreSQL does not run as root, and there is no user runwire, postgres or nobody to run it as",
        "make a user runwire, or start as another user",
    )


def permits(user: ServiceUser, path: Path, bit: int) -> bool:
    """Whether this one file gives `user` the right `bit` (4 read, 2 write, 1 enter or execute)."""
    if user.ids is None:
        return os.access(path, bit)  # knows of further groups and access lists too
    status = path.stat()
    if status.st_uid == user.uid:
        return bool(status.st_mode & (bit << 6))
    if status.st_gid == user.gid:
        return bool(status.st_mode & (bit << 3))
    return bool(status.st_mode & bit)


def reaches(user: ServiceUser, path: Path) -> bool:
    """Whether `user` may enter every folder on the way to `path`, and `path` too when it is a folder."""
    path = path.resolve()
    return all(permits(user, folder, 1) for folder in (path, *path.parents) if folder.is_dir())


def default_data_dir(base: Path) -> Path:
    """`.runwire` in `base`; for root and a base that the service user cannot reach, a folder under /var/lib/runwire.

    A home directory is often closed to others (0700). Root could open it with chmod, but it is not ours to open.
    """
    base = base.resolve()
    if reaches(service_user(), base):
        return base / ".runwire"
    name = re.sub(r"[^A-Za-z0-9._-]", "_", base.name) or "root"
    return SHARED_ROOT / f"{name}-{_short_hash(base)}"


def open_data_dir(data: Path, user: ServiceUser) -> None:
    """Makes the data folder where it is missing, and checks that caller and service user can both use it."""
    existing = next(folder for folder in (data, *data.parents) if os.path.lexists(folder))
    if not existing.is_dir():
        raise ServiceError(f"{existing} is not a folder, so {data} cannot hold data", "choose another one with --data")
    if not reaches(user, existing):
        raise ServiceError(
            f"the user {user.name}, as whom root runs PostgreSQL, cannot reach {existing}",
            f"choose a folder that others may enter, for example --data {SHARED_ROOT / data.name.lstrip('.')}",
        )
    # Root's folder may be passed through, not listed: pg/ and run/ inside it belong to the service user.
    mode = 0o700 if user.ids is None else 0o711
    missing = [folder for folder in (data, *data.parents) if not folder.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir()
            folder.chmod(mode)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(existing) from error
        raise ServiceError(f"cannot make the data folder {data}: {error.strerror}", "choose another one") from error
    owner = data.stat().st_uid
    if owner != os.geteuid():
        raise ServiceError(
            f"the data folder {data} belongs to {_name_of(owner)}", "start as that user, or choose another with --data"
        )
    if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        raise ServiceError(f"the data folder {data} is not writable", "choose another one with --data")


def lock_data_dir(data: Path) -> int:
    """Takes the data folder for this process and returns the lock's descriptor; the lock ends with the process.

    flock and not a pid file: the kernel lets go of it on kill -9, and a pid that is used again cannot hold it.
    """
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        with suppress(OSError):  # the number only serves the message below; on a full disk there is none
            os.pwrite(lock, str(os.getpid()).encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace") or "unknown"
        os.close(lock)
        raise ServiceError(
            f"another runwire (process {holder}) already uses the data folder {data}",
            "stop it first, or give this one its own folder with --data",
        ) from None
    return lock


def open_own_folder(folder: Path, user: ServiceUser) -> None:
    """A 0700 folder of the service user's, made or found; one that somebody else made is refused, not taken over."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(handle, user.uid, user.gid)
        finally:
            os.close(handle)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user.uid:
        raise ServiceError(
            f"{folder} is not a folder of the user {user.name}, but belongs to {_name_of(found.st_uid)}",
            "remove it, or start as that user",
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)


def socket_dir(data: Path, user: ServiceUser) -> Path:
    """The folder of the servers' sockets: in the data folder, or, where a socket's path would be too long, under /tmp.

    Both servers trust whoever reaches their socket (no password), so this folder is the lock on the door: mode 0700, of
    the service user, hence open to that user and root only. When root runs Runwire and no user `runwire` or `postgres`
    exists, the sockets are open to whatever else runs as `nobody`; make a user `runwire` to keep it out.
    """
    names = ("run", f"runwire-{_short_hash(data)}", f"runwire-{_short_hash(data)}")
    for parent, name in zip((data, Path(tempfile.gettempdir()), Path("/tmp")), names, strict=True):  # noqa: S108
        folder = parent / name
        fits = len(os.fsencode(folder / _LONGEST_SOCKET_NAME)) <= SOCKET_PATH_MAX
        if fits and _PLAIN_PATH.fullmatch(str(folder)) and reaches(user, parent):
            open_own_folder(folder, user)
            return folder
    raise ServiceError(
        f"no place for the servers' sockets: the path of {data} and of {tempfile.gettempdir()} is too long",
        f"a socket's path may have {SOCKET_PATH_MAX} bytes; choose a shorter one with --data or TMPDIR",
    )


def check_disk(data: Path, min_free_bytes: int) -> None:
    free = shutil.disk_usage(data).free
    if free < min_free_bytes:
        raise ServiceError(
            f"too little free disk space for {data}: {free / 2**20:.0f} MiB, at least {min_free_bytes / 2**20:.0f} MiB "
            "wanted",
            "free some, or set RUNWIRE_DISK_FREE_MIN_BYTES",
        )


def disk_full(data: Path) -> ServiceError:
    return ServiceError(f"the disk that holds {data} is full", "free some space and start again; nothing is lost")


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user number {uid}"
