"""What an operator can do with the seal: make its key, verify, acknowledge, rotate; and is told why when not."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import text

from eventstore import sealing, signing
from eventstore.seal import Sealer
from eventstore.settings import SealSettings
from ops import seals
from ops.exits import Complaint
from ops.services import Endpoints
from tests.conftest import new_database
from tests.sealing import Desk, desk
from tests.tampering import past_the_triggers


@pytest.fixture
def database_url(services: Endpoints, template: str) -> str:
    return new_database(services, template)


@pytest_asyncio.fixture(loop_scope="session")
async def d(database_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(database_url, tmp_path) as made:
        yield made


async def sealer(d: Desk, database_url: str) -> Sealer:
    """As the process builds it, from the settings that `up` would give it."""
    told = seals.ensure(d.folder).environ()
    settings = SealSettings.model_validate(
        {name.removeprefix("RUNWIRE_").lower(): value for name, value in told.items()} | {"database_url": database_url}
    )
    return sealing.build(d.sealers, settings, await sealing.store_of(d.sealers, settings))


async def test_an_operator_makes_the_key_verifies_acknowledges_and_rotates(d: Desk, database_url: str) -> None:
    run = await d.run("a", "b")
    assert (await (await sealer(d, database_url)).tick()).signed == 1
    assert seals.ensure(d.folder) == seals.place(d.folder, {})
    report = await asyncio.to_thread(seals.verify, database_url, d.folder)
    assert report.ok, report.findings
    assert seals.told(report).endswith("Nothing contradicts.")
    with pytest.raises(Complaint, match="nothing to acknowledge"):
        await asyncio.to_thread(seals.acknowledge, database_url, d.folder, "for fun")

    async with past_the_triggers(d) as connection:
        for table in ("event", "head"):
            await connection.execute(text(f"DELETE FROM runwire.{table} WHERE run_id = :run"), {"run": run})
    assert (await (await sealer(d, database_url)).tick()).fault == "shut"
    report = await asyncio.to_thread(seals.verify, database_url, d.folder)
    assert f"block: run {run}: event 4, sealed in block 1, is gone" in seals.told(report)
    with pytest.raises(Complaint, match="says why"):
        seals.acknowledge(database_url, d.folder, " ")
    standing = await asyncio.to_thread(seals.acknowledge, database_url, d.folder, "a bad day")
    assert [str(each) for each in standing.damaged] == [f"{run}: missing, 4 events were sealed"]

    new = seals.rotate(d.folder)
    assert (await (await sealer(d, database_url)).tick()).signed == 2
    report = await asyncio.to_thread(seals.verify, database_url, d.folder)
    assert report.ok, report.findings  # the catalogue still lists the run; that nothing is left of it was acknowledged
    assert '"why":"a bad day"' in seals.told(report)
    own = d.folder / "mine.pub"
    own.write_text(f"# kept by the auditor\n{new.encode()}\n")
    report = await asyncio.to_thread(seals.verify, database_url, d.folder, own)
    assert [finding.layer for finding in report.findings] == ["signature"]  # the first note is the old key's only


async def test_a_key_that_cannot_be_used_is_a_complaint(d: Desk, database_url: str) -> None:
    with pytest.raises(Complaint, match="no public keys"):
        seals.verify(database_url, d.folder)
    with pytest.raises(Complaint, match="no sealing key"):
        seals.rotate(d.folder)
    place = seals.ensure(d.folder)
    place.key.chmod(0o644)
    with pytest.raises(Complaint, match="read by others"):
        seals.ensure(d.folder)
    with pytest.raises(Complaint, match="read by others"):
        await asyncio.to_thread(seals.acknowledge, database_url, d.folder, "why")
    assert signing.read_public(Path(f"{place.key}.pub"))


def test_a_bucket_is_refused_before_anything_starts() -> None:
    told = {"database_url": "postgresql:///", "seal_key_file": "k", "checkpoint_dir": "c"}
    SealSettings.model_validate(told)
    with pytest.raises(ValueError, match="under half"):
        SealSettings.model_validate(told | {"seal_tick_s": 3})
