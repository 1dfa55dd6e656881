"""Ports of this machine: whether one is free, and one that is and stays so."""

import errno
import ipaddress
import random
import socket
from typing import Final

from ops.exits import FAILED, USAGE, Complaint

# Below the range from which the system gives ports to outgoing connections: a server that is started again there finds
# its port free, and a client that tries while it is away never ends up connected to itself.
_OWN_PORTS: Final = range(20_000, 32_000)


def check_port(host: str, port: int) -> None:
    """A Complaint unless a server could listen there now."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise Complaint(f"--host {host} is no address of this machine: {error}", USAGE) from error
    family, kind, protocol, _, address = addresses[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Complaint(f"port {port} on {host} is in use", FAILED, "choose another with --port") from error
            raise Complaint(f"cannot listen on {host} port {port}: {error.strerror}", FAILED) from error


def free_port(host: str = "127.0.0.1") -> int:
    """A port where nobody listens."""
    for _ in range(200):
        port = random.choice(_OWN_PORTS)  # noqa: S311
        try:
            check_port(host, port)
        except Complaint as complaint:
            if complaint.code == USAGE:
                raise
            continue
        return port
    raise Complaint(f"no free port on {host}")


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server that listens there, or is reached by a client that asks there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def address(host: str, port: int) -> str:
    """The address under which a server that listens there is reached from this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
