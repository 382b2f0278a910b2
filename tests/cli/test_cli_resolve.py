"""Names to ids, and where the service is."""

import json
from pathlib import Path

import pytest
from cli_rigs import CannedService
from cli_samples import experiment, page, run

from orchestrator.cli.address import find_address
from orchestrator.cli.client import Client, connect
from orchestrator.cli.errors import BadUsage, Unknown
from orchestrator.cli.resolve import experiment_id, run_id


@pytest.fixture
def client(service: CannedService) -> Client:
    runs = page(run(1, "aux-0.01"), run(2, "aux-0.0"), run(3, "aux-0.0", seed=1), run(4, "top1"))
    service.routes["GET /v1/experiments/exp_9/runs"] = runs
    service.routes["GET /v1/experiments"] = lambda request: (
        page(experiment(number=9)) if request.query.get("name", "aux") == "aux" else page()
    )
    return connect()


@pytest.mark.parametrize(("text", "id_"), [("exp_3", "exp_3"), ("last", "exp_9"), ("aux", "exp_9")])
def test_an_experiment_by_id_last_or_name(client: Client, text: str, id_: str) -> None:
    assert experiment_id(client, text) == id_


@pytest.mark.parametrize(
    ("text", "id_"),
    [
        ("run_77", "run_77"),
        ("exp_9/aux-0.01", "run_1"),
        ("aux/aux-0.0/1", "run_3"),
        ("last/aux-0.0/0", "run_2"),
        ("top1", "run_4"),
    ],
)
def test_a_run_by_id_or_by_its_place(client: Client, text: str, id_: str) -> None:
    assert run_id(client, text) == id_


@pytest.mark.parametrize("text", ["aux-0.0", "exp_9/aux-0.0/x", "a/b/0/1", "aux//0"])
def test_what_names_no_single_run_is_bad_usage(client: Client, text: str) -> None:
    with pytest.raises(BadUsage):
        run_id(client, text)


@pytest.mark.parametrize("text", ["other", "other/top1", "aux/top3", "aux/aux-0.0/7"])
def test_what_is_not_there_is_unknown(client: Client, text: str) -> None:
    with pytest.raises(Unknown):
        run_id(client, text)


def test_no_experiment_yet(service: CannedService) -> None:
    service.routes["GET /v1/experiments"] = page()
    with pytest.raises(Unknown, match="there is no experiment yet"):
        experiment_id(connect(), "last")


def test_the_address_is_said_then_written_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_HOME", str(tmp_path))
    assert find_address().url == "http://127.0.0.1:8700"
    (tmp_path / "service.json").write_text("not json")
    assert find_address().url == "http://127.0.0.1:8700"
    (tmp_path / "service.json").write_text(json.dumps({"url": "http://127.0.0.1:5", "pid": 1}))
    assert find_address().url == "http://127.0.0.1:5"
    monkeypatch.setenv("ASSAY_URL", "assay.example:80/")
    assert find_address().url == "http://assay.example:80"
    assert find_address("https://x/").url == "https://x"


def test_the_settings_file_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "assay.toml"
    file.write_text('url = "http://from-toml:1"\n')
    monkeypatch.setenv("ASSAY_CONFIG", str(file))
    assert find_address().url == "http://from-toml:1"
    file.write_text("url =")
    with pytest.raises(BadUsage, match="ASSAY_CONFIG"):
        find_address()


@pytest.mark.parametrize(
    "text",
    ["ftp://x", "http://", "http://[", "http://x:99999", "http://a b", "http://a..b", "http://%zz", ""],
)
def test_no_address_at_all(text: str) -> None:
    with pytest.raises(BadUsage, match="is no address"):
        find_address(text)
