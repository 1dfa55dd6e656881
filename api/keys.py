"""API keys: `rw_<key id>_<secret>`, shown once when made; the database holds a SHA-256 digest only."""

import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest
from time import monotonic
from typing import Final, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.requests import HTTPConnection

from api.callers import Caller
from api.errors import NotAuthenticated
from api.gathering import Gathered
from eventstore.arrays import Texts
from eventstore.domain.disclosure import ROLES, Role
from eventstore.sql import STATEMENTS, rows

SHAPE: Final = re.compile(r"rw_([0-9a-f]{16})_[0-9a-f]{64}", re.ASCII)
REMEMBERED_S: Final = 1.0  # a revoked key works at most this much longer
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
    """Looks keys up, those of one moment together, and takes a good one's word for a second without asking again."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asked: Gathered[str, _Known] = Gathered(self._ask)

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
        known = await self._asked.of(key_id)
        if known is None:
            self._known.pop(key_id, None)
            raise NotAuthenticated
        self._known[key_id] = known
        self._known.move_to_end(key_id)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return known

    async def _ask(self, key_ids: Sequence[str]) -> Mapping[str, _Known]:
        until = monotonic() + REMEMBERED_S  # from before it was asked: what is revoked meanwhile is known no longer
        async with self._engine.connect() as connection:
            found = await rows(connection, "api_keys", {"key_ids": Texts.of(key_ids)})
        return {
            key_id: _Known(bytes(digest), Caller(key_id, tenant_id, tenant, subject, role), until)
            for key_id, digest, tenant_id, tenant, subject, role in found
            if role in ROLES
        }


def key_in(request: HTTPConnection) -> str:
    """The key that a request carries, in a header and nowhere else."""
    headers = request.headers
    return given_key(headers.get("authorization", ""), headers.get("x-api-key", ""))


def given_key(authorization: str, own: str) -> str:
    """The key in these headers."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer" and given:
        return given.strip()
    if own:
        return own.strip()
    raise NotAuthenticated("Send an API key: `Authorization: Bearer rw_…`.")


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
