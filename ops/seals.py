"""The operator's side of the seal: making its key, acknowledging a loss, rotating the key, verifying the database."""

import asyncio
import getpass
import os
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from eventstore import incarnation, sealing, signing
from eventstore.database import async_engine
from eventstore.domain.note import BadNote, PublicKey
from eventstore.incarnation import NotThisLog, Standing
from eventstore.mending import CannotAcknowledge
from eventstore.settings import SealSettings
from eventstore.signing import KeyFault
from eventstore.verification import Report, verify_against
from ops.exits import FAILED, USAGE, Complaint

NAME: Final = "runwire"
READY: Final = "sealer ready"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the key and the checkpoints are."""

    key: Path
    checkpoints: Path

    def environ(self) -> dict[str, str]:
        """What a sealer process is told."""
        return {"RUNWIRE_SEAL_KEY_FILE": str(self.key), "RUNWIRE_CHECKPOINT_DIR": str(self.checkpoints)}


def place(data: Path, environ: Mapping[str, str] = os.environ) -> Place:
    """As the environment says, else in the data folder. A folder beside the database guards against a restored backup
    and not against who administers the machine: for that, name one that is out of their reach."""
    key = environ.get("RUNWIRE_SEAL_KEY_FILE") or data / "seal" / "key"
    return Place(Path(key), Path(environ.get("RUNWIRE_CHECKPOINT_DIR") or data / "seal" / "checkpoints"))


def ensure(data: Path) -> Place:
    """The key, made at the first start, and the folder of checkpoints."""
    found = place(data)
    try:
        signing.ensure_key(found.key, os.environ.get("RUNWIRE_SEAL_ORIGIN") or NAME)
        found.checkpoints.mkdir(mode=0o755, parents=True, exist_ok=True)
    except (KeyFault, OSError) as fault:
        raise Complaint(f"the seal: {fault}", FAILED) from fault
    return found


def rotate(data: Path) -> PublicKey:
    """A new key signs from the next checkpoint on."""
    try:
        return signing.rotate(place(data).key)
    except KeyFault as fault:
        raise Complaint(str(fault), FAILED) from fault


def acknowledge(database_url: str, data: Path, why: str) -> Standing:
    """Say what was lost, for good, and let the log take events again."""
    if not why.strip():
        raise Complaint("an acknowledgement says why", USAGE)
    return _said(_acknowledge(_settings(database_url, place(data)), why))


def verify(database_url: str, data: Path, keys: Path | None = None) -> Report:
    """The whole database against every checkpoint that is kept outside, by public keys from a file of one's own."""
    found = place(data)
    try:
        trusted = signing.read_public(keys or Path(f"{found.key}{signing.PUBLIC_SUFFIX}"))
    except (OSError, ValueError) as fault:
        raise Complaint(f"no public keys: {fault}", USAGE) from fault
    return _said(_verify(_settings(database_url, found), trusted))


def told(report: Report) -> str:
    """A verification for people."""
    lines = [
        f"{report.events} events of {report.runs} runs, {report.size} blocks, {len(report.checkpoints)} checkpoints.",
        f"{report.unsealed} events are not sealed yet and rest on their chain alone.",
    ]
    lines += [f"Acknowledged loss: {statement.decode(errors='replace')}" for statement in report.incarnations]
    lines += [f"{finding.layer}: {finding.where}: {finding.what}" for finding in report.findings]
    lines += [f"and {report.more} more" for _ in range(bool(report.more))]
    lines.append("Nothing contradicts." if report.ok else "This is not the log that was sealed.")
    return "\n".join(lines)


def _settings(database_url: str, found: Place) -> SealSettings:
    try:
        return SealSettings(
            database_url=SecretStr(database_url), seal_key_file=found.key, checkpoint_dir=found.checkpoints
        )
    except ValidationError as fault:
        said = fault.errors(include_input=False)[0]["msg"].removeprefix("Value error, ")
        raise Complaint(f"the settings do not fit: {said}", USAGE) from fault


async def _acknowledge(settings: SealSettings, why: str) -> Standing:
    url = settings.database_url.get_secret_value()
    engine = async_engine(url, application="runwire-acknowledge", role="runwire_owner", pool_size=1)
    try:
        keys = signing.load(settings.seal_key_file).public
        store = await sealing.store_of(engine, settings)
        async with engine.begin() as connection:
            origin = await incarnation.log_origin(connection, settings.seal_origin)
            by = getpass.getuser()
            return await incarnation.acknowledge(connection, store, keys, origin=origin, by=by, why=why)
    finally:
        await engine.dispose()


async def _verify(settings: SealSettings, keys: list[PublicKey]) -> Report:
    engine = async_engine(
        settings.database_url.get_secret_value(), application="runwire-verify", role="runwire_sealer", pool_size=1
    )
    try:
        store = await sealing.store_of(engine, settings)
        notes = await asyncio.to_thread(lambda: list(store.notes()))
        async with engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            origin = await incarnation.log_origin(connection, settings.seal_origin)
            return await verify_against(connection, notes, keys, origin)
    finally:
        await engine.dispose()


def _said(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except (KeyFault, NotThisLog, BadNote, CannotAcknowledge) as fault:
        raise Complaint(str(fault), FAILED) from fault
    except OSError as fault:
        raise Complaint(f"what is kept outside: {fault}", FAILED) from fault
    except SQLAlchemyError as fault:
        said = str(getattr(fault, "orig", None) or fault).strip().partition("\n")[0]
        raise Complaint(f"the database: {said}", FAILED) from fault
