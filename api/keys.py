"""API keys: `rw_<key id>_<secret>`, shown once when made; the database holds a SHA-256 digest only."""

import re
import secrets
from collections import OrderedDict
from hashlib import sha256
from hmac import compare_digest
from time import monotonic
from typing import Final, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import HTTPConnection

from api.callers import Caller
from api.errors import NotAuthenticated
from eventstore.domain.disclosure import ROLES, Role
from eventstore.sql import STATEMENTS, rows

SHAPE: Final = re.compile(r"rw_([0-9a-f]{16})_[0-9a-f]{64}", re.ASCII)
REMEMBERED_S: Final = 20.0  # a revoked key works at most this much longer
REMEMBERED_MAX: Final = 10_000


class _Known(NamedTuple):
    digest: bytes
    caller: Caller
    until: float


def create_key(engine: Engine, tenant: str, subject: str, role: Role) -> str:
    """Make a key for this person, and the tenant if there is none of this name. The answer is the only copy."""
    if role not in ROLES:
        raise ValueError(f"there is no role {role}; roles are {', '.join(ROLES)}")
    if not tenant.strip() or not subject.strip():
        raise ValueError("a key needs a tenant and a subject")
    key_id = secrets.token_hex(8)
    key = f"rw_{key_id}_{secrets.token_hex(32)}"
    row = {"key_id": key_id, "digest": _digest(key), "tenant": tenant, "subject": subject, "role": role}
    with engine.begin() as connection:
        connection.exec_driver_sql(STATEMENTS["create_key"], row)
    return key


class Keys:
    """Looks keys up, and remembers the good ones for a moment so that a poll costs no look-up."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def caller(self, key: str) -> Caller:
        """Whose key this is; NotAuthenticated when it is nobody's."""
        shape = SHAPE.fullmatch(key)
        if shape is None:
            raise NotAuthenticated
        key_id = shape[1]
        known = self._known.get(key_id)
        if known is None or known.until < monotonic():
            known = await self._look_up(key_id)
        if not compare_digest(known.digest, _digest(key)):
            raise NotAuthenticated
        return known.caller

    def recalled(self, key: str, outage_s: float) -> Caller | None:
        """Whose key this was when it was last looked up, for so long after: enough to let them wait, and no more."""
        shape = SHAPE.fullmatch(key)
        known = self._known.get(shape[1]) if shape else None
        if known is None or known.until + outage_s < monotonic() or not compare_digest(known.digest, _digest(key)):
            return None
        return known.caller

    async def _look_up(self, key_id: str) -> _Known:
        async with self._engine.connect() as connection:
            found = await rows(connection, "api_key", {"key_id": key_id})
        if not found or found[0].role not in ROLES:
            self._known.pop(key_id, None)
            raise NotAuthenticated
        digest, tenant_id, tenant, subject, role = found[0]
        known = _Known(bytes(digest), Caller(key_id, tenant_id, tenant, subject, role), monotonic() + REMEMBERED_S)
        self._known[key_id] = known
        self._known.move_to_end(key_id)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return known


def key_in(request: HTTPConnection) -> str:
    """The key that a request carries, in a header and nowhere else."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and given:
        return given.strip()
    if own := request.headers.get("x-api-key"):
        return own.strip()
    raise NotAuthenticated("Send an API key: `Authorization: Bearer rw_…`.")


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
