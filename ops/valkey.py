"""The embedded Valkey: knows its settings, and ends one that an earlier start left."""

import signal
from contextlib import suppress
from pathlib import Path

import redis

from ops.binaries import valkey_program
from ops.places import ServiceUser, open_own_folder
from ops.servers import Server, end_left_over

_SETTINGS = {
    # Only the unix socket, for its own user (and root): see places.socket_dir.
    "port": "0",
    "unixsocketperm": "700",
    # Work that was handed over survives a restart. It may also be lost: the log knows what is still to be done.
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "daemonize": "no",
    "logfile": "",  # standard output, which is data/valkey.log
    "always-show-logo": "no",
}


def valkey_socket(sockets: Path) -> Path:
    return sockets / "valkey.sock"


def valkey_server(data: Path, user: ServiceUser, sockets: Path) -> Server:
    """A Valkey that is ready to be started; nobody runs in its data folder."""
    folder = data / "valkey"
    open_own_folder(folder, user)
    socket = valkey_socket(sockets)
    pid_file = folder / "valkey.pid"
    with suppress(FileNotFoundError, ValueError):
        end_left_over(int(pid_file.read_text(encoding="ascii")), "valkey-server", folder, str(socket))
    argv = [str(valkey_program(data, user))]
    for name, value in {**_SETTINGS, "dir": str(folder), "unixsocket": str(socket), "pidfile": str(pid_file)}.items():
        argv += [f"--{name}", value]
    return Server(
        "valkey",
        argv,
        data / "valkey.log",
        user,
        death_signal=signal.SIGTERM,
        stops=((signal.SIGTERM, 10.0),),
        answers=lambda: _answers(socket),
    )


def _answers(socket: Path) -> bool:
    with suppress(redis.ConnectionError, redis.TimeoutError), redis.Redis(unix_socket_path=str(socket)) as client:
        return bool(client.ping())  # while it loads its file it answers with an error
    return False
