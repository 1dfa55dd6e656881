"""The browser itself: that it starts here, and that a live stream reaches a page."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.browser import chromium

PAGE = b"<!doctype html><title>stream</title>"
FRAMES = [f"id: {seq}\nevent: token\ndata: piece {seq}\n\n".encode() for seq in (1, 2, 3)]


class _Stream(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        streaming = self.path == "/events"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if streaming else "text/html")
        self.end_headers()
        for part in FRAMES if streaming else [PAGE]:
            self.wfile.write(part)
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class names it
        """Quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stream) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_an_event_source_in_chromium_receives_named_events_with_their_ids(page: Page, address: str) -> None:
    await page.goto(address)
    heard = await page.evaluate(
        """() => new Promise((resolve) => {
            const heard = [];
            const source = new EventSource("/events");
            source.addEventListener("token", (event) => {
                heard.push([event.lastEventId, event.data]);
                if (heard.length === 3) { source.close(); resolve(heard); }
            });
        })"""
    )
    assert heard == [["1", "piece 1"], ["2", "piece 2"], ["3", "piece 3"]]


def test_a_fetch_that_fails_says_what_failed_and_is_never_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("package.json", "package-lock.json"):
        (tmp_path / name).write_bytes((chromium.HERE / name).read_bytes())
    monkeypatch.setattr(chromium, "HERE", tmp_path)
    monkeypatch.setattr(chromium, "MODULES", tmp_path / "node_modules")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "empty"))
    monkeypatch.setenv("npm_config_offline", "true")
    with pytest.raises(chromium.ChromiumError, match="fetching Chromium with npm ended with exit code 1"):
        chromium.chromium_executable()


def test_a_browser_of_ones_own_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chromium.OVERRIDE, "/no/such/chromium")
    with pytest.raises(chromium.ChromiumError, match="/no/such/chromium"):
        chromium.chromium_executable()
