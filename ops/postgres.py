"""The embedded PostgreSQL: makes its data folder, knows its settings, and ends one that an earlier start left."""

import re
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql

from ops.binaries import postgres_programs
from ops.places import ServiceError, ServiceUser, open_own_folder
from ops.servers import Server, alive, end_left_over, run_once

DATABASE = "runwire"
SUPERUSER = "postgres"

_SETTINGS = {
    # Only the unix socket, and only for its own user (and root): that is the whole of its access control, see
    # places.socket_dir; pg_hba.conf says `trust`.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    # For a laptop with two cores that does other work too. Durability stays at its defaults: fsync and
    # synchronous_commit are on.
    "shared_buffers": "256MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    # Logs go to standard error, which is data/postgres.log. A failed statement and the details of an error would carry
    # document text: neither is logged.
    "logging_collector": "off",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "timezone": "UTC",
    "cluster_name": "runwire",
}


def postgres_server(data: Path, user: ServiceUser, sockets: Path) -> Server:
    """A PostgreSQL that is ready to be started; its data folder is made, or checked, and nobody runs in it."""
    programs = postgres_programs(data, user)
    folder = data / "pg"
    if folder.exists():
        _check_version(folder, programs, user)
        _end_left_over(folder)
    else:
        _make_data_folder(folder, programs, user)
    argv = [str(programs / "postgres"), "-D", str(folder)]
    for name, value in {**_SETTINGS, "unix_socket_directories": str(sockets)}.items():
        argv += ["-c", f"{name}={value}"]
    return Server(
        "postgres",
        argv,
        data / "postgres.log",
        user,
        # SIGQUIT ends it at once, whatever it is doing, so that the next start need not wait for a checkpoint; that
        # start then recovers from the WAL as after any crash.
        death_signal=signal.SIGQUIT,
        stops=((signal.SIGINT, 30.0), (signal.SIGQUIT, 6.0)),  # fast shutdown, then immediate
        answers=lambda: _answers(folder, sockets),
        start_timeout_s=60.0,  # crash recovery replays at most about max_wal_size
        busy_sign="pre-existing shared memory block",  # backends of a killed postmaster live a moment longer
    )


def make_database(sockets: Path) -> None:
    with psycopg.connect(host=str(sockets), user=SUPERUSER, dbname="postgres", autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _answers(folder: Path, sockets: Path) -> bool:
    # Its pid file says when it is ready. Asking by connecting only would fill the log with refusals during a recovery.
    with suppress(OSError, psycopg.OperationalError):
        lines = (folder / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        if len(lines) < 8 or lines[7].strip() != "ready":
            return False
        psycopg.connect(host=str(sockets), user=SUPERUSER, dbname="postgres", connect_timeout=10).close()
        return True
    return False


def _make_data_folder(folder: Path, programs: Path, user: ServiceUser) -> None:
    # Made aside and renamed at the end: an initdb that was killed half-way is never taken for a database.
    fresh = folder.with_name("pg.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    open_own_folder(fresh, user)
    options = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    argv = [str(programs / "initdb"), "-D", str(fresh), f"--username={SUPERUSER}", "--auth=trust", *options]
    run_once(argv, user, folder.parent)
    fresh.rename(folder)


def _check_version(folder: Path, programs: Path, user: ServiceUser) -> None:
    open_own_folder(folder, user)
    try:
        found = (folder / "PG_VERSION").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise ServiceError(f"{folder} is not a PostgreSQL data folder", "choose another folder with --data") from None
    printed = run_once([str(programs / "postgres"), "--version"], user, folder.parent)
    ours = re.search(r"(\d+)", printed)
    if ours is None or found != ours[1]:
        raise ServiceError(
            f"{folder} was written by PostgreSQL {found}, and this is {printed.strip()}",
            "choose another folder with --data, or bring the data over with pg_upgrade",
        )


def _end_left_over(folder: Path) -> None:
    """Waits for a postmaster of an earlier start to go, and clears away a pid file that would keep us out for nothing.

    PostgreSQL takes a stale postmaster.pid for a living one when its pid is in use again by any process of the same
    user, which after a restart of a container is likely. We hold the folder's lock and know that it is another program.
    """
    pid_file = folder / "postmaster.pid"
    try:
        lines = pid_file.read_text(encoding="utf-8", errors="replace").splitlines()
        pid, started_at = int(lines[0]), float(lines[2])
    except FileNotFoundError:
        return
    except (IndexError, ValueError):  # written half: the disk was full, or the machine stopped
        pid_file.unlink()
        return
    ended = end_left_over(pid, "postgres", folder, str(folder), started_at)
    if not ended and alive(pid):
        pid_file.unlink(missing_ok=True)
