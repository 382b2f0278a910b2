"""`assay doctor` on real homes: what it says, how it exits, and that it makes nothing that was not there."""

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.bootstrap import LOCK_FILE, utc_now
from orchestrator.checkup import Unhealthy, checkup
from orchestrator.cli.diagnosis import diagnosis
from orchestrator.domain.errors import Missing
from orchestrator.settings import Settings
from orchestrator.store.backup import FOLDER as BACKUPS
from orchestrator.store.database import locked_file
from orchestrator.store.opening import make_ready, open_database


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Of a home that has served before."""
    settings = Settings(home=tmp_path / "home", min_free_bytes=0)
    with closing(open_database(settings.resolved_database_url, settings.home / BACKUPS)) as database:
        make_ready(database, settings.home / BACKUPS, utc_now)
    return settings


def examined(settings: Settings, capsys: pytest.CaptureFixture[str], *, mend: bool = False) -> dict[str, Any]:
    """What `--json` prints."""
    try:
        checkup(settings, mend=mend, quick=False, as_json=True)
    except Unhealthy:
        document = json.loads(capsys.readouterr().out)
        assert document["healthy"] is False
    else:
        document = json.loads(capsys.readouterr().out)
        assert document["healthy"] is True
    assert isinstance(document, dict)
    return document


def test_a_healthy_home(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    document = examined(settings, capsys)
    assert document == {"home": str(settings.home), "served": False, "healthy": True, "findings": []}
    checkup(settings, mend=False, quick=True, as_json=False)
    assert capsys.readouterr().out == f"{settings.home} is healthy: nothing to do (no service works on it)\n"


def test_what_is_found_is_said_and_mended_when_asked(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    address = settings.home / "service.json"
    address.write_text('{"url": "http://127.0.0.1:1"}')
    with pytest.raises(Unhealthy):
        checkup(settings, mend=False, quick=False, as_json=False)
    out = capsys.readouterr().out
    assert "warning  address: it names a service at http://127.0.0.1:1" in out
    assert f"{settings.home} is not healthy: 1 warning (no service works on it)" in out
    assert address.exists()
    mended = examined(settings, capsys, mend=True)
    assert "(repaired)" in str(diagnosis(mended))
    assert not address.exists()
    assert examined(settings, capsys)["findings"] == []


def test_while_a_service_works_on_it_nothing_of_the_services_is_touched(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    address = settings.home / "service.json"
    address.write_text('{"url": "http://127.0.0.1:1"}')
    with locked_file(settings.home / LOCK_FILE, "held"):
        assert examined(settings, capsys, mend=True)["served"] is True
    assert address.exists()


def test_a_damaged_database_and_none_are_found(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    file = settings.home / "assay.sqlite3"
    content = file.read_bytes()
    file.write_bytes(content[:4096] + os.urandom(8192) + content[12288:])
    (damaged,) = examined(settings, capsys)["findings"]
    assert (damaged["severity"], damaged["area"], damaged["where"]) == ("error", "database", str(file))
    file.unlink()
    (missing,) = examined(settings, capsys)["findings"]
    assert "there is no database" in missing["what"]
    assert not file.exists()


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="there is no data folder"):
        checkup(Settings(home=tmp_path / "none"), mend=True, quick=False, as_json=False)
    assert not (tmp_path / "none").exists()


def test_the_command_exits_with_what_it_found(settings: Settings) -> None:
    command = [sys.executable, "-m", "orchestrator.cli.main", "doctor", "--home", str(settings.home)]
    environment = {**os.environ, "ASSAY_MIN_FREE_BYTES": "0"}
    ran = subprocess.run([*command, "--quick"], capture_output=True, text=True, check=False, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "is healthy" in ran.stdout
    (settings.home / "service.json").write_text("{}")
    ran = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 1
    assert [f["area"] for f in json.loads(ran.stdout)["findings"]] == ["address"]
