"""One Chromium for all browser tests, and a fresh page for each."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.services import Endpoints
from tests import node
from tests.browser.between import standing_between
from tests.browser.chromium import chromium_environment, chromium_executable
from tests.browser.stand import Stand
from tests.serving import register

# The first test of a fresh checkout also fetches the browser.
FIRST_FETCH_TIMEOUT_S = 600
BUILD_TIMEOUT_S = 120
ARGUMENTS = [
    "--no-sandbox",  # containers and root have no user namespace to give; the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",  # every page is on this machine
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(FIRST_FETCH_TIMEOUT_S))


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Chromium without a window, with an empty profile that is thrown away."""
    executable = await asyncio.to_thread(chromium_executable)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=executable,
            headless=True,
            args=ARGUMENTS,
            env={**chromium_environment(executable)},
        )
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page in a context of its own; an uncaught error or a breach of its content policy fails the test."""
    faults: list[str] = []
    context = await browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(15_000)
    opened = await context.new_page()
    opened.on("pageerror", lambda error: faults.append(f"uncaught: {error}"))
    opened.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    yield opened
    await context.close()
    assert not faults, "\n".join(faults)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def client_scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TypeScript client as a browser runs it."""
    out = tmp_path_factory.mktemp("client")
    modules = await asyncio.to_thread(node.packages)
    tsc = [str(modules / ".bin" / "tsc"), "--project", "tsconfig.build.json", "--outDir", str(out)]
    await asyncio.to_thread(node.run, "building the client", tsc, node.WEB, BUILD_TIMEOUT_S)
    return out / "client"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stand(
    database_url: str,
    services: Endpoints,
    worker_engine: AsyncEngine,
    api_engine: AsyncEngine,
    redis: Redis,
    client_scripts: Path,
) -> AsyncIterator[Stand]:
    """A real API, a proxy before it, and a run that the test writes."""
    await register(worker_engine)
    async with standing_between("", client_scripts) as between:
        made = Stand(database_url, services.redis_url, worker_engine, api_engine, redis, between)
        await made.start()
        yield made
        await made.stop()
