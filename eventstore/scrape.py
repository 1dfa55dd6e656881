"""A small door for processes without an API: their metrics at an address of their own, for as long as they live."""

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import structlog
from prometheus_client import CollectorRegistry, start_http_server
from pydantic import AfterValidator

logger = structlog.get_logger(__name__)


class NoDoor(Exception):
    """The address cannot be had; the message is for the operator."""


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:9101` or `[::1]:9101`. No name: what a name stands for may change under a process."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if ":" in host else host
    if not (colon and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError("must be an address and a port, such as 127.0.0.1:9101")
    try:
        ipaddress.ip_address(host)
    except ValueError as fault:
        raise ValueError("must begin with an IP address, such as 127.0.0.1:9101") from fault
    return host, int(port)


def _checked(text: str) -> str:
    parse_address(text)
    return text


Address = Annotated[str, AfterValidator(_checked)]


@contextmanager
def serving(address: str | None, registry: CollectorRegistry, setting: str) -> Iterator[None]:
    """Answer scrapes at this address; without one, do nothing. A thread does it: a loop that hangs can be seen too."""
    if not address:
        yield
        return
    host, port = parse_address(address)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as fault:
        raise NoDoor(f"{setting}: cannot listen on {address}: {fault.strerror}") from fault
    try:
        logger.info(
            "metrics", address=f"http://{host if ':' not in host else f'[{host}]'}:{server.server_port}/metrics"
        )
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
