"""The settings that the model's code reads, as they were at the export."""

from collections.abc import Mapping
from typing import Any


class Settings:
    """A group of settings as attributes, and its groups likewise."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, Settings(value) if isinstance(value, Mapping) else value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the export has no setting '{name}'")


Config = MoeConfig = Settings
"""The names that the model's code imports."""
