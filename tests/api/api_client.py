"""Specs for the API's tests."""

from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from worlds import spec

from orchestrator.protocol.wire import JsonObject


def sound_spec(**changes: Any) -> JsonObject:
    """A spec that is accepted, with `changes` at its top level."""
    return spec(**changes)


class LocalClient(TestClient):
    """A client on this machine: the service answers to loopback names alone."""

    def __init__(self, app: FastAPI, **options: Any) -> None:
        super().__init__(app, base_url="http://127.0.0.1", **options)
