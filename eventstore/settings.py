"""What every process must know of the log: where it is, how long an owner may be silent, how it is sealed."""

from pathlib import Path
from typing import Literal, Self

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
    sweep_s: float = Field(default=1.0, gt=0, le=5, description="how often a worker looks for what nobody carries")
    tenant_runs_max: int = Field(default=1_000, gt=0, description="runs of one tenant under way at once")
    caller_runs_max: int = Field(default=500, gt=0, description="runs of one caller under way at once")
    queue_wait_s: float = Field(default=3_600.0, gt=0, description="a run that waited this long to begin is ended")
    readers_gone_s: float = Field(
        default=15.0,
        gt=0,
        description="an API process that says nothing for so long has no readers any more",
    )
    input_bytes_max: int = Field(default=262_144, gt=0)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.heartbeat_s * 2 >= self.lease_s:
            raise ValueError("heartbeat_s must be under half of lease_s, or one late heartbeat costs a run its worker")
        return self


class SealSettings(BaseSettings):
    """What the sealer must know. Read from RUNWIRE_* variables."""

    model_config = SettingsConfigDict(env_prefix="RUNWIRE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: SecretStr
    seal_key_file: Path = Field(description="the Ed25519 key that signs; outside the database, mode 0600")
    checkpoint_dir: Path | None = Field(default=None, description="a folder out of the database administrators' reach")
    checkpoint_bucket: str | None = Field(default=None, min_length=1, description="an S3-compatible bucket for them")
    checkpoint_bucket_prefix: str = Field(default="", max_length=500, description="what its objects' names begin with")
    checkpoint_bucket_endpoint: str | None = Field(
        default=None, pattern=r"^https?://[^\s/?#@]+/?$", description="any other server than Amazon's: its URL"
    )
    checkpoint_bucket_region: str = Field(default="us-east-1", min_length=1)
    checkpoint_bucket_path_style: bool | None = Field(
        default=None,
        description="the bucket in the path, not in the host; unset: with an endpoint of its own",
    )
    checkpoint_bucket_access_key: SecretStr | None = None
    checkpoint_bucket_secret_key: SecretStr | None = None
    checkpoint_bucket_session_token: SecretStr | None = None
    checkpoint_bucket_lock: Literal["governance", "compliance"] | None = Field(
        default=None, description="the object lock that each object is put with; the bucket must have it"
    )
    checkpoint_bucket_lock_days: int = Field(default=0, ge=0, le=36_500, description="how long nothing can remove one")
    checkpoint_bucket_timeout_s: float = Field(default=2.0, gt=0, le=30, description="to connect, and for an answer")
    seal_origin: str = Field(default="runwire", min_length=1, max_length=200, pattern=r"^[^\s+]+$")
    seal_tick_s: float = Field(default=1.0, gt=0, description="how often moved heads are looked for")
    seal_lease_s: float = Field(default=5.0, gt=0, description="a silent sealer loses the lead after this long")
    seal_block_runs_max: int = Field(default=10_000, gt=0, description="runs in one block; more make more blocks")
    seal_follow_events_per_s: float = Field(
        default=20_000, gt=0, description="what was sealed is walked at most this fast; some 6 µs of CPU an event"
    )
    seal_metrics: Address | None = Field(default=None, description="address of the sealer's metrics; unset: none")
    seal_start_s: float = Field(default=30.0, gt=0, description="a starting sealer waits this long for what it needs")
    seal_retry_s: float = Field(default=5.0, ge=0, description="after checkpoints could not be kept: again then")

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.checkpoint_dir is None and self.checkpoint_bucket is None:
            raise ValueError("checkpoint_dir or checkpoint_bucket must say where checkpoints are kept, or both")
        keys = (self.checkpoint_bucket_access_key, self.checkpoint_bucket_secret_key)
        if self.checkpoint_bucket is not None and not all(key and key.get_secret_value() for key in keys):
            raise ValueError("checkpoint_bucket needs checkpoint_bucket_access_key and checkpoint_bucket_secret_key")
        if (self.checkpoint_bucket_lock is None) != (self.checkpoint_bucket_lock_days == 0):
            raise ValueError("checkpoint_bucket_lock and checkpoint_bucket_lock_days are given together or not at all")
        if self.seal_tick_s * 2 >= self.seal_lease_s:
            raise ValueError("seal_tick_s must be under half of seal_lease_s, or the lead changes at every late tick")
        return self
