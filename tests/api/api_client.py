"""Specs for the API's tests."""

from typing import Any

from worlds import spec

from orchestrator.protocol.wire import JsonObject


def sound_spec(**changes: Any) -> JsonObject:
    """A spec that is accepted, with `changes` at its top level."""
    return spec(**changes)
