"""Settings from the environment: where things are kept, and how much happens at once.

Does not know what is kept there.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agents.errors import InputError, StorageError

ON_WORKER = "PREFECT__FLOW_RUN_ID"  # what Prefect's workers set for the flows that they run
RUNNERS = ("local", "dask", "ray")
PREFIX = "UNDERSTUDY_"
POSTGRESQL = "postgresql+psycopg"


class Settings(BaseSettings):
    """Read the variables that begin with `UNDERSTUDY_`; each has a default."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    home: Path = Path(".understudy")
    database_url: str | None = Field(default=None, repr=False, description="default: a file in the home")
    database_wait: float = Field(default=30.0, ge=0.0, description="seconds to wait for a lost database")
    concurrent_calls: int = Field(default=32, ge=1, description="model calls at once in one process")
    call_timeout: float = Field(default=30.0, gt=0.0, description="seconds that a remote model may take")
    prices: str = Field(default="", description="model=READ/WRITTEN,…: US dollars per million tokens")
    runner: str = Field(default="local", description="local, dask or ray, or dask:ADDRESS or ray:ADDRESS")
    api_keys: SecretStr = Field(default=SecretStr(""), description="comma-separated keys of the service")

    notify_url: str | None = Field(default=None, description="webhook that notifications go to")
    stuck_seconds: float = Field(default=900.0, gt=0.0, description="silence after which a job is stuck")
    retell_seconds: float = Field(
        default=600.0, gt=0.0, description="time after which a step that nobody took is asked for again"
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = error.errors()[0]
            name = f"{PREFIX}{'_'.join(map(str, wrong['loc'])).upper()}"
            raise InputError(
                f"{name}={wrong['input']!r} cannot be used: {wrong['msg']}.", "Correct or unset it."
            ) from error

    @field_validator("runner")
    @classmethod
    def _known_runner(cls, value: str) -> str:
        kind, colon, address = value.partition(":")
        if kind not in RUNNERS or bool(colon) != bool(address) or (colon and kind == "local"):
            raise ValueError("write local, dask or ray, or the address of a cluster: dask:tcp://host:8786")
        return value

    @property
    def fan_out(self) -> tuple[str, str | None]:
        """Return where shards run, `local`, `dask` or `ray`, and the address of a running cluster."""
        kind, _, address = self.runner.partition(":")
        return kind, address or None

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys that the service accepts; none means that it asks for none."""
        found = (key.strip() for key in self.api_keys.get_secret_value().split(","))
        return tuple(key for key in found if key)

    @property
    def database(self) -> str:
        """Return the SQLAlchemy URL of the database; `postgresql://` means our driver for it."""
        url = self.database_url or f"sqlite:///{self.home.absolute() / 'understudy.db'}"
        scheme, separator, rest = url.partition("://")
        return f"{POSTGRESQL}{separator}{rest}" if scheme in ("postgresql", "postgres") else url

    @property
    def objects(self) -> Path:
        """Return the folder of datasets, adapters, exports and reports."""
        return self.home.absolute() / "objects"

    @property
    def cache(self) -> Path:
        """Return the folder of what can be made again: converted checkpoints."""
        return self.home.absolute() / "cache"


def read_settings() -> Settings:
    """Return the settings of the environment as it is now; raise InputError for a value that cannot be."""
    return _read(frozenset((name, value) for name, value in os.environ.items() if name.startswith(PREFIX)))


@lru_cache(maxsize=8)
def _read(_variables: frozenset[tuple[str, str]]) -> Settings:
    return Settings()


def make_home(settings: Settings) -> Path:
    """Create the home folder if needed and return it; raise StorageError when it cannot be written."""
    if ON_WORKER in os.environ and not settings.home.is_absolute():
        raise StorageError(
            f"The home {settings.home} is relative, but a worker runs flows in folders of their own.",
            "Set UNDERSTUDY_HOME to its whole path where the worker is started, or use `make worker`.",
        )
    home = settings.home.absolute()
    probe = home / ".writable"
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"The home folder {home} cannot be written: {error.strerror}.",
            "Choose another with UNDERSTUDY_HOME, or mend its permissions.",
        ) from error
    return home
