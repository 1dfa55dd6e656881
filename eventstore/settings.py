"""What every process must know of the log: where it is, how long an owner may be silent, how it is sealed."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventstore.scrape import Address


class StoreSettings(BaseSettings):
    """Read from RUNWIRE_* variables; limits carry their unit and are checked against each other here."""

    model_config = SettingsConfigDict(env_prefix="RUNWIRE_", frozen=True, extra="ignore")

    database_url: SecretStr
    redis_url: SecretStr
    lease_s: float = Field(default=6.0, gt=0, description="a silent worker loses its run after this long")
    heartbeat_s: float = Field(default=2.0, gt=0, description="a worker without events renews its leases this often")
    sweep_s: float = Field(default=1.0, gt=0, description="how often forgotten runs are looked for")
    forgotten_s: float = Field(default=3.0, gt=0, description="an unowned run is handed over again after this long")
    input_bytes_max: int = Field(default=262_144, gt=0)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.heartbeat_s * 2 >= self.lease_s:
            raise ValueError("heartbeat_s must be under half of lease_s, or one late heartbeat costs a run its worker")
        return self


class SealSettings(BaseSettings):
    """What the sealer must know. Read from RUNWIRE_* variables."""

    model_config = SettingsConfigDict(env_prefix="RUNWIRE_", frozen=True, extra="ignore")

    database_url: SecretStr
    seal_key_file: Path = Field(description="the Ed25519 key that signs; outside the database, mode 0600")
    checkpoint_dir: Path = Field(description="where checkpoints are kept, out of reach of who administers the database")
    checkpoint_bucket: str | None = Field(default=None, description="not in this release; set, it stops the start")
    seal_origin: str = Field(default="runwire", min_length=1, max_length=200, pattern=r"^[^\s+]+$")
    seal_tick_s: float = Field(default=1.0, gt=0, description="how often moved heads are looked for")
    seal_lease_s: float = Field(default=5.0, gt=0, description="a silent sealer loses the lead after this long")
    seal_block_runs_max: int = Field(default=20_000, gt=0, description="runs in one block; more make more blocks")
    seal_follow_events_per_s: float = Field(
        default=20_000, gt=0, description="what was sealed is walked at most this fast; some 6 µs of CPU an event"
    )
    seal_metrics: Address | None = Field(default=None, description="address of the sealer's metrics; unset: none")
    seal_start_s: float = Field(default=30.0, gt=0, description="a starting sealer waits this long for the database")

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.checkpoint_bucket is not None:
            raise ValueError("checkpoint_bucket: this release keeps checkpoints in a folder only (checkpoint_dir)")
        if self.seal_tick_s * 2 >= self.seal_lease_s:
            raise ValueError("seal_tick_s must be under half of seal_lease_s, or the lead changes at every late tick")
        return self
