"""`python -m tests.golden.record`: the golden log of the present revision, written once, at its release."""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.database import async_engine, sync_engine
from migrations import schema
from ops.services import Endpoints, external_or_embedded
from tests.conftest import new_database
from tests.golden.reading import read
from tests.golden.rows import dump, load, read_rows, write_rows
from tests.golden.story import tell
from tests.sealing import desk

LOGS = Path(__file__).parent / "log"
POLICY = Path(__file__).parents[2] / "policies" / "contract_review.toml"


def revisions() -> list[str]:
    """The revisions that have a golden log."""
    return sorted(folder.name for folder in LOGS.iterdir() if folder.is_dir())


async def record(database_url: str, work: Path, folder: Path) -> None:
    """Tell the story to a real database at the present revision, and keep all that there is of it."""
    async with desk(database_url, work) as d:
        await tell(d)
        async with d.owner.connect() as connection:
            tables = await dump(connection)
        write_rows(folder / "rows", tables)
        shutil.copytree(work / "outside", folder / "outside")
        shutil.copy(f"{d.key_file}.pub", folder / "keys.pub")
        shutil.copy(POLICY, folder / "policy.toml")
        await write_reading(d.owner, folder)


async def restore(database_url: str, folder: Path) -> AsyncEngine:
    """A golden log as its release left it, brought to the present revision; answers the way into it."""
    engine = sync_engine(database_url, application="golden")
    owner = async_engine(database_url, application="golden", role=None, pool_size=2)
    try:
        schema.upgrade(engine, to=folder.name)
        async with owner.begin() as connection:
            await load(connection, read_rows(folder / "rows"))
        schema.upgrade(engine)
    except BaseException:
        await owner.dispose()
        raise
    finally:
        engine.dispose()
    return owner


async def write_reading(owner: AsyncEngine, folder: Path) -> None:
    """What the present release reads of it."""
    (folder / "reading").mkdir(exist_ok=True)
    async with owner.connect() as connection:
        for name, told in (await read(connection, folder)).items():
            (folder / "reading" / name).write_bytes(told)


async def _reread(services: Endpoints, folder: Path) -> None:
    owner = await restore(new_database(services, "template0"), folder)
    await write_reading(owner, folder)
    await owner.dispose()


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.golden.record", description=__doc__)
    asked.add_argument(
        "--reading", metavar="REVISION", help="write anew only what is read of this log: when that changed on purpose"
    )
    revision = asked.parse_args().reading
    folder = LOGS / (revision or schema.newest())
    if revision is None and folder.exists():
        print(f"{folder} is there already; a golden log is written once and never again", file=sys.stderr)
        return 1
    if revision is not None and not folder.exists():
        print(f"there is no golden log of {revision}; there are: {', '.join(revisions())}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="runwire-golden-") as made:
        work = Path(made)
        work.chmod(0o755)  # as root the servers run as another user, who must be able to enter
        with external_or_embedded(work / "data", os.environ) as services:
            if revision is not None:
                asyncio.run(_reread(services, folder))
            else:
                url = new_database(services, "template0")
                engine = sync_engine(url, application="golden")
                schema.upgrade(engine)
                engine.dispose()
                asyncio.run(record(url, work / "seal", work / "golden"))
                shutil.copytree(work / "golden", folder)  # whole or not at all
    print(f"written: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
