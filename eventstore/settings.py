"""What every process must know of the log: where it is, and how long an owner may be silent."""

from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class StoreSettings(BaseSettings):
    """Read from RUNWIRE_* variables; limits carry their unit and are checked against each other here."""

    model_config = SettingsConfigDict(env_prefix="RUNWIRE_", frozen=True, extra="ignore")

    database_url: SecretStr
    redis_url: SecretStr
    lease_s: float = Field(default=6.0, gt=0, description="a silent worker loses its run after this long")
    heartbeat_s: float = Field(default=2.0, gt=0, description="a worker without events renews its leases this often")
    sweep_s: float = Field(default=1.0, gt=0, description="how often forgotten runs are looked for")
    forgotten_s: float = Field(default=3.0, gt=0, description="an unowned run is handed over again after this long")
    event_bytes_max: int = Field(default=65_536, gt=0)
    input_bytes_max: int = Field(default=262_144, gt=0)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.heartbeat_s * 2 >= self.lease_s:
            raise ValueError("heartbeat_s must be under half of lease_s, or one late heartbeat costs a run its worker")
        return self
