"""The scripted model server as a program: `python -m worker.llm.scripted --port-file FILE`."""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import uvloop

from worker import workflows
from worker.llm.scripted_rules import ScriptError, load_rules
from worker.llm.scripted_server import ScriptedServer


def main(arguments: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 0 then, 1 with one line when it could not start."""
    options = _options(arguments)
    try:
        rules = load_rules(options.scripts or [Path(workflows.__file__).parent])
        server = ScriptedServer(rules, host=options.host, port=options.port)
        _forget(options.port_file)  # one of an earlier start that was killed
        uvloop.run(_serve(server, options.port_file))
        _forget(options.port_file)
    except (ScriptError, ValueError, OSError, OverflowError) as error:
        print(f"scripted model server: {error}", file=sys.stderr)
        return 1
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.llm.scripted", description="The scripted model server.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="the chosen port is written here once it listens")
    parser.add_argument("--scripts", type=Path, nargs="+", metavar="DIR", help="folders with *.script.json files")
    return parser.parse_args(arguments)


async def _serve(server: ScriptedServer, port_file: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server:
        if port_file is not None:
            _write(port_file, server.port)
        print(server.url, flush=True)
        await stop.wait()


def _forget(port_file: Path | None) -> None:
    if port_file is not None:
        port_file.unlink(missing_ok=True)


def _write(port_file: Path, port: int) -> None:
    """Whoever waits for the file never reads half of it."""
    half = port_file.with_name(f"{port_file.name}.{os.getpid()}")
    half.write_text(f"{port}\n")
    half.replace(port_file)


if __name__ == "__main__":
    sys.exit(main())
