"""The keys of a newcomer's own machine: one per role, made once, kept in the data folder and shown at each start."""

import asyncio
from pathlib import Path
from typing import Final

from api.errors import NotAuthenticated
from api.keys import Keys, create_key
from eventstore.database import async_engine, sync_engine
from eventstore.domain.disclosure import ROLES, Role
from ops.running import read_json, write_json

TENANT: Final = "demo"


def stored_keys(data: Path) -> dict[str, str]:
    """The keys by role as the data folder holds them; without checking that they still work."""
    told = (read_json(_file(data)) or {}).get("keys")
    if not isinstance(told, dict):
        return {}
    return {role: key for role in ROLES if isinstance(key := told.get(role), str)}


def ensure_keys(data: Path, database_url: str) -> dict[str, str]:
    """One working key per role. Those that the database does not know, as it is another one, are made anew."""
    stored = stored_keys(data)
    working = asyncio.run(_known(database_url, stored)) if stored else {}
    missing: list[Role] = [role for role in ROLES if role not in working]
    if missing:
        engine = sync_engine(database_url, application="runwire-up")
        try:
            working |= {role: create_key(engine, TENANT, f"demo-{role}", role) for role in missing}
        finally:
            engine.dispose()
        write_json(_file(data), {"tenant": TENANT, "keys": {role: working[role] for role in ROLES}})
    return {role: working[role] for role in ROLES}


async def _known(database_url: str, stored: dict[str, str]) -> dict[str, str]:
    """Those of the stored keys that belong to their role in this database."""
    engine = async_engine(database_url, application="runwire-up", role="runwire_api", pool_size=1)
    keys, known = Keys(engine), dict[str, str]()
    try:
        for role, key in stored.items():
            try:
                caller = await keys.caller(key)
            except NotAuthenticated:
                continue
            if caller.role == role:
                known[role] = key
    finally:
        await engine.dispose()
    return known


def _file(data: Path) -> Path:
    return data / "keys.json"
