"""One Runwire per module for the tests that need nothing special, in a folder that its servers' user may enter."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import Stage
from tests.machine import open_folder


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """As many workers as the module's WORKERS says, or one."""
    with open_folder() as folder:
        started = Stage(folder / "data", workers=getattr(request.module, "WORKERS", 1)).start()
        try:
            yield started
        finally:
            started.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of this test's own, in which servers of another user can work."""
    with open_folder() as found:
        yield found
