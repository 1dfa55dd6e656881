"""The fixtures for authors: `pytest_plugins = ("runwire_testing.plugin",)` in a test module brings `author`."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from eventstore.workflow_folders import CODE, SETTING, workflow_folders
from ops.services import Endpoints
from runwire_testing.author import Author
from runwire_testing.place import authoring
from runwire_testing.servers import servers_of_our_own


@pytest.fixture(scope="session")
def author_servers() -> Iterator[Endpoints]:
    """PostgreSQL and Valkey for this session."""
    with servers_of_our_own() as endpoints:
        yield endpoints


@pytest.fixture
def author_folders(request: pytest.FixtureRequest) -> list[Path]:
    """The workflows that a test may start besides those that come along: its own, and those of the setting."""
    beside = [folder for folder in request.path.parents if (folder / CODE).is_file()]
    named = workflow_folders(os.environ.get(SETTING, ""))
    return [*beside[:1], *(folder for folder in named if folder not in beside)]


@pytest_asyncio.fixture
async def author(author_servers: Endpoints, author_folders: list[Path]) -> AsyncIterator[Author]:
    """Runs on real servers and a scripted model. No provider can be reached: its key and address are not read."""
    async with authoring(author_servers, author_folders) as made:
        yield made
        await made.close()
