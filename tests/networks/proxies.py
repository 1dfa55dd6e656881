"""Real proxies on free ports: started with a configuration of the test's, ended by their process id."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from ops.places import service_user
from ops.ports import address, free_port
from ops.servers import Server
from tests.house import ROOT
from tests.machine import open_folder

NGINX = Path("/usr/sbin/nginx")
PRIVOXY = Path("/usr/sbin/privoxy")
HOST = "127.0.0.1"
EXAMPLE = ROOT / "ops/nginx"

_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    access_log {folder}/access.log;
    {http}
}}
"""
# Nothing but where to listen and whom to ask: every other setting is nginx's own.
BARE = "server {{ listen {listen}; location / {{ proxy_pass {upstream}; }} }}"
# What somebody writes who wants everything smaller.
GZIP = "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1; gzip_http_version 1.0;" + BARE
ON_TOP = "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;"  # of our example, by whoever wrote nginx.conf

# One filter that changes nothing is enough: Privoxy reads every text to its end before it gives the first byte on.
_PRIVOXY = """
confdir {folder}
logdir {folder}
templdir /etc/privoxy/templates
actionsfile all.action
filterfile all.filter
listen-address {listen}
"""
_ACTIONS = "{ +filter{nothing} }\n/\n"
_FILTER = "FILTER: nothing Changes nothing.\ns@ab12cd34ef56@ab12cd34ef56@\n"


def ours(listen: str, upstream: str, folder: Path) -> str:
    """The example that we ship, with its marked places changed, as its reader would."""
    http = (EXAMPLE / "runwire.conf").read_text()
    changes = {
        "server 127.0.0.1:8000;": f"server {urlsplit(upstream).netloc};",
        "listen 80;": f"listen {listen};",
        "/etc/nginx/runwire_locations.conf": str(EXAMPLE / "runwire_locations.conf"),
        "/var/log/nginx/runwire.log": f"{folder}/runwire.log",
        "/var/log/nginx/runwire.error.log": f"{folder}/runwire.error.log",
    }
    for found, instead in changes.items():
        assert http.count(found) == 1, f"the example has no {found}"
        http = http.replace(found, instead)
    return http


def nginx_http(way: str, listen: str, upstream: str, folder: Path) -> str:
    """What stands inside http {} for each way in which nginx is set up."""
    match way:
        case "bare":
            return BARE.format(listen=listen, upstream=upstream)
        case "gzip":
            return GZIP.format(listen=listen, upstream=upstream)
        case "ours":
            return ours(listen, upstream, folder)
    return ON_TOP + ours(listen, upstream, folder)


@contextmanager
def nginx(way: str, upstream: str) -> Iterator[tuple[str, Path]]:
    """nginx in front of this address; answers its own address and its folder."""
    with open_folder() as folder:
        port = free_port(HOST)
        http = nginx_http(way, f"{HOST}:{port}", upstream, folder)
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, http=http))
        with _running("nginx", [str(NGINX), "-c", str(folder / "nginx.conf"), "-p", str(folder)], folder, port):
            yield address(HOST, port), folder


@contextmanager
def privoxy() -> Iterator[str]:
    """A filtering proxy that clients are told to use; answers its address."""
    with open_folder() as folder:
        port = free_port(HOST)
        (folder / "config").write_text(_PRIVOXY.format(folder=folder, listen=f"{HOST}:{port}"))
        (folder / "all.action").write_text(_ACTIONS)
        (folder / "all.filter").write_text(_FILTER)
        with _running("privoxy", [str(PRIVOXY), "--no-daemon", str(folder / "config")], folder, port):
            yield address(HOST, port)


@contextmanager
def _running(name: str, argv: list[str], folder: Path, port: int) -> Iterator[None]:
    folder.chmod(0o777)  # as root the proxy runs as another user, who writes its logs here
    server = Server(
        name,
        argv,
        folder / f"{name}.out",
        service_user(),
        death_signal=signal.SIGKILL,
        stops=((signal.SIGTERM, 5.0),),
        answers=lambda: _listens(port),
    )
    server.start()
    try:
        server.wait_until_it_answers()
        yield
    finally:
        server.stop()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
