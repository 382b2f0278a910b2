from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_rigs import FakeRig, LocalRig, Rig

_RIGS: dict[str, Callable[[Path], Rig]] = {"local": LocalRig, "fake": FakeRig}


@pytest.fixture(params=sorted(_RIGS))
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    rig = _RIGS[request.param](tmp_path)
    yield rig
    rig.tear_down()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalRig]:
    rig = LocalRig(tmp_path)
    yield rig
    rig.tear_down()
