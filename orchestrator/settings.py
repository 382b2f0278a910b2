"""The process environment: `ASSAY_*` variables, or a TOML file named by `ASSAY_CONFIG`."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

CONFIG = "ASSAY_CONFIG"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class TrainerKind(BaseModel):
    """A program that operators allow to be launched. `{assignment}` in `argv` becomes the file's path."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    argv: tuple[str, ...]
    check: str
    """Import path `module:function` of the `CheckConfig` that validates its configs at submission."""

    @field_validator("argv")
    @classmethod
    def _names_the_assignment(cls, argv: tuple[str, ...]) -> tuple[str, ...]:
        if not any("{assignment}" in part for part in argv):
            raise ValueError(
                "one argument must hold `{assignment}`: the path of the worker's assignment file"
            )
        return argv


BUILTIN = TrainerKind(
    argv=(sys.executable, "-m", "trainer", "work", "{assignment}"), check="trainer.facts:check"
)


class Settings(BaseSettings):
    """Every setting of the service. Environment wins over the TOML file, which wins over the defaults."""

    model_config = SettingsConfigDict(env_prefix="ASSAY_", extra="forbid", frozen=True)

    home: Path = Field(default_factory=lambda: user_data_path("assay"))
    """The data folder: database, runs, checkpoints, caches."""
    database_url: str | None = None
    """SQLAlchemy URL; None for `<home>/assay.sqlite3`."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8700
    """0 for a free port; the address in use stands in `<home>/service.json`."""
    url: str | None = None
    """Where workers reach the service, if not at host and port."""
    allowed_hosts: tuple[str, ...] = ()
    """Host headers accepted beside the loopback names."""
    token: str | None = None
    """What people present as a bearer token. Needed for any address but loopback."""

    slots: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU slots of the local engine; None for one a core."""
    use_gpus: bool | None = None
    """True: slots are GPUs; False: CPU slots; None: GPUs where there are any."""
    trainers: dict[str, TrainerKind] = Field(default_factory=dict)
    """Trainer kinds beside `builtin`."""
    criteria: tuple[str, ...] = ()
    """Modules that register criteria of the operator's own; imported before any policy is read."""

    tick_seconds: Annotated[float, Field(gt=0)] = 1.0
    lease_seconds: Annotated[float, Field(gt=0, validate_default=True)] = 60.0
    progress_seconds: Annotated[float, Field(gt=0, validate_default=True)] = 900.0
    """A worker that is heard but comes no further for so long is stalled, and is restarted."""
    start_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """The same, to its first step."""
    unknown_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """How long after its lease an attempt that the engine cannot tell of is waited for."""
    min_free_bytes: Annotated[int, Field(ge=0)] = 2**30
    """No worker is started while the data folder's disk has less."""
    ingest_queue: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Reports and heartbeats that may wait to be written; above it, 429 with Retry-After."""
    leader_seconds: Annotated[float, Field(gt=0)] = 15.0
    """On PostgreSQL: how long the service that ticks may be silent before another takes over."""
    heartbeat_seconds: Annotated[float, Field(gt=0, validate_default=True)] = 2.0
    gate_wait_seconds: Annotated[float, Field(ge=0)] = 300.0
    cancel_grace_seconds: Annotated[float, Field(ge=0)] = 20.0
    body_limit_bytes: Annotated[int, Field(ge=1024)] = 16 * 2**20

    @field_validator("lease_seconds")
    @classmethod
    def _outlasts_ticks(cls, lease: float, info: ValidationInfo) -> float:
        tick = info.data.get("tick_seconds")
        if tick is not None and lease <= 2 * tick:
            raise ValueError(
                f"{lease:g} is not more than twice ASSAY_TICK_SECONDS ({tick:g}), and whoever looks so "
                f"rarely finds everybody silent: set it above {2 * tick:g}, or lower ASSAY_TICK_SECONDS"
            )
        return lease

    @field_validator("progress_seconds")
    @classmethod
    def _outlasts_the_lease(cls, progress: float, info: ValidationInfo) -> float:
        lease = info.data.get("lease_seconds")
        if lease is not None and progress < lease:
            raise ValueError(
                f"{progress:g} is less than ASSAY_LEASE_SECONDS ({lease:g}): set it to {lease:g} or more, "
                "or lower ASSAY_LEASE_SECONDS"
            )
        return progress

    @field_validator("heartbeat_seconds")
    @classmethod
    def _renews_the_lease(cls, heartbeat: float, info: ValidationInfo) -> float:
        lease = info.data.get("lease_seconds")
        if lease is not None and lease <= 2 * heartbeat:
            raise ValueError(
                f"{heartbeat:g} is not less than half of ASSAY_LEASE_SECONDS ({lease:g}), so that one lost "
                f"heartbeat ends a worker: set it below {lease / 2:g}, or raise ASSAY_LEASE_SECONDS"
            )
        return heartbeat

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get(CONFIG)
        if file and not Path(file).is_file():
            raise SettingsError(f"{CONFIG} names `{file}`, and there is no such file")
        toml = [TomlConfigSettingsSource(settings_cls, file)] if file else []
        return (init_settings, env_settings, *toml)

    @property
    def is_exposed(self) -> bool:
        """Whether the service listens beyond this machine."""
        return self.host not in LOOPBACK

    @property
    def cpu_slots(self) -> int:
        return self.slots or os.cpu_count() or 1

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.home.resolve() / 'assay.sqlite3'}"

    def trainer_kinds(self) -> dict[str, TrainerKind]:
        return {"builtin": BUILTIN, **self.trainers}


def unknown_variables(environment: Iterable[str]) -> list[str]:
    """`ASSAY_*` names that mean nothing to the service or its command line: misspelt, most likely."""
    known = {f"ASSAY_{name.upper()}" for name in Settings.model_fields} | {CONFIG, "ASSAY_WORKER"}
    return sorted(name for name in environment if name.startswith("ASSAY_") and name not in known)
