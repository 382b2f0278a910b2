from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from listening_service import ListeningService


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Token caches, shared by the tests as they are by workers."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def service() -> Iterator[ListeningService]:
    service = ListeningService(target=20)
    yield service
    service.close()
