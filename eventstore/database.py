"""How processes reach Postgres: engines with bounded waits, each in the role that its process may play."""

import re
from typing import Final

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

# The migration that this release's statements need: `<word>_<number>`, and numbers only grow. A version that is changed
# before its release gets another word, so that a database which was made by the state before is told from ours.
SCHEMA_VERSION: Final = "readers_7"

# A black hole on the network must not hold a writer longer than a lease: connect, data in flight and idle are bounded.
CONNECT: Final = {"connect_timeout": 3, "tcp_user_timeout": 5000, "keepalives_idle": 10, "keepalives_interval": 5}
SHUT_SQLSTATE: Final = "57000"
SESSION: Final = {
    "statement_timeout": "5s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "5s",
    "timezone": "UTC",
    # Every hot statement names its run, so a plan for that run touches one partition; a generic plan would lock all.
    "plan_cache_mode": "force_custom_plan",
}


def version_number(version: str | None) -> int | None:
    """Where a version stands among all; None for what is no version of ours."""
    found = re.fullmatch(r"[a-z]+_([0-9]+)", version or "")
    return int(found[1]) if found else None


def version_fault(version: str | None) -> str | None:
    """Why this release cannot work on a database at this version; None when it can. A later version is fine: the
    database is migrated before the last process of the old release is gone."""
    number, own = version_number(version), version_number(SCHEMA_VERSION)
    assert own is not None
    if version == SCHEMA_VERSION or (number is not None and number > own):
        return None
    if version is None or (number is not None and number < own):
        return f"is older than this release ({SCHEMA_VERSION}): runwire migrate"
    return f"is at version {version}, which no release has made; this one needs {SCHEMA_VERSION}"


def is_shut_gate(fault: BaseException) -> bool:
    """Whether this is the gate's refusal (runwire.refuse_while_shut), and not a server that is away."""
    return getattr(getattr(fault, "orig", None), "sqlstate", None) == SHUT_SQLSTATE


def _arguments(application: str, role: str | None) -> dict[str, object]:
    session = {**SESSION, **({"role": role} if role else {})}
    options = " ".join(f"-c {name}={value}" for name, value in session.items())
    return {**CONNECT, "application_name": application, "options": options}


def _url(database_url: str) -> URL:
    return make_url(database_url).set(drivername="postgresql+psycopg")


def async_engine(database_url: str, *, application: str, role: str | None, pool_size: int) -> AsyncEngine:
    """An engine for a long-lived process. Connections are checked before use, so a restarted server costs no error."""
    return create_async_engine(
        _url(database_url),
        connect_args=_arguments(application, role),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        hide_parameters=True,  # they hold what people sent
    )


def sync_engine(database_url: str, *, application: str) -> Engine:
    """An engine for commands: migrations and keys, as the connecting user itself."""
    return create_engine(
        _url(database_url), connect_args={**CONNECT, "application_name": application}, pool_size=1, max_overflow=1
    )
