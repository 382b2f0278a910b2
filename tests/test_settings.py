"""The process environment: variables, a TOML file, defaults, and what is refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.settings import BUILTIN, Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No `ASSAY_*` variable of the machine that runs the tests is seen."""
    import os

    for name in [name for name in os.environ if name.upper().startswith("ASSAY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def toml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "assay.toml"
    monkeypatch.setenv("ASSAY_CONFIG", str(file))
    return file


def test_defaults_are_for_one_machine() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.token) == ("127.0.0.1", 8700, None)
    assert not settings.is_exposed
    assert settings.home.name == "assay"
    assert settings.trainer_kinds() == {"builtin": BUILTIN}
    assert settings.cpu_slots >= 1


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_PORT", "0")
    monkeypatch.setenv("ASSAY_SLOTS", "3")
    monkeypatch.setenv("ASSAY_USE_GPUS", "false")
    monkeypatch.setenv("ASSAY_ALLOWED_HOSTS", '["assay.example", "other"]')
    monkeypatch.setenv("ASSAY_TICK_SECONDS", "0.25")
    settings = Settings()
    assert (settings.port, settings.slots, settings.cpu_slots, settings.use_gpus) == (0, 3, 3, False)
    assert settings.allowed_hosts == ("assay.example", "other")
    assert settings.tick_seconds == 0.25


def test_the_file_is_read(toml: Path) -> None:
    toml.write_text(
        'port = 9000\nhome = "/data"\n[trainers.mine]\nargv = ["run", "{assignment}"]\ncheck = "m:f"\n'
    )
    settings = Settings()
    assert (settings.port, settings.home) == (9000, Path("/data"))
    assert set(settings.trainer_kinds()) == {"builtin", "mine"}
    assert settings.trainers["mine"].argv == ("run", "{assignment}")


def test_a_variable_wins_over_the_file_and_an_argument_over_both(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml.write_text("port = 9000\nlease_seconds = 5\nslots = 2\n")
    monkeypatch.setenv("ASSAY_PORT", "9001")
    monkeypatch.setenv("ASSAY_SLOTS", "4")
    settings = Settings(slots=8)
    assert (settings.slots, settings.port, settings.lease_seconds) == (8, 9001, 5.0)
    assert settings.heartbeat_seconds == 2.0


def test_without_the_variable_no_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "assay.toml").write_text("port = 9000\n")
    (tmp_path / ".env").write_text("ASSAY_PORT=9001\n")
    monkeypatch.chdir(tmp_path)
    assert Settings().port == 8700


def test_the_builtin_trainer_can_be_replaced_by_an_operator(toml: Path) -> None:
    toml.write_text('[trainers.builtin]\nargv = ["/opt/train", "{assignment}"]\ncheck = "m:f"\n')
    assert Settings().trainer_kinds()["builtin"].argv[0] == "/opt/train"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "http"),
        ("SLOTS", "0"),
        ("SLOTS", "1025"),
        ("TICK_SECONDS", "0"),
        ("LEASE_SECONDS", "-5"),
        ("HEARTBEAT_SECONDS", "0"),
        ("GATE_WAIT_SECONDS", "-1"),
        ("BODY_LIMIT_BYTES", "10"),
        ("USE_GPUS", "perhaps"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ASSAY_{name}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [error["loc"] for error in caught.value.errors()] == [(name.lower(),)]


@pytest.mark.parametrize("argv", ['["train"]', "[]", '["train", "assignment"]'])
def test_a_trainer_kind_must_be_told_where_its_assignment_is(toml: Path, argv: str) -> None:
    toml.write_text(f'[trainers.mine]\nargv = {argv}\ncheck = "m:f"\n')
    with pytest.raises(ValidationError, match=r"one argument must hold `\{assignment\}`"):
        Settings()


def test_a_trainer_kind_has_no_other_keys(toml: Path) -> None:
    toml.write_text('[trainers.mine]\nargv = ["{assignment}"]\ncheck = "m:f"\nshell = true\n')
    with pytest.raises(ValidationError, match="shell"):
        Settings()


def test_an_argument_may_hold_the_assignment_inside(toml: Path) -> None:
    toml.write_text('[trainers.mine]\nargv = ["t", "--job={assignment}"]\ncheck = "m:f"\n')
    assert Settings().trainers["mine"].argv == ("t", "--job={assignment}")


@pytest.mark.parametrize(
    ("host", "exposed"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),  # noqa: S104 - the address whose exposure is asked about
        ("::", True),
        ("192.168.1.4", True),
        ("assay.example", True),
        ("", True),
    ],
)
def test_any_address_but_loopback_is_exposed(host: str, exposed: bool) -> None:
    assert Settings(host=host).is_exposed is exposed


def test_the_database_lies_in_the_home_unless_it_is_named(tmp_path: Path) -> None:
    assert Settings(home=tmp_path).resolved_database_url == f"sqlite:///{tmp_path / 'assay.sqlite3'}"
    url = "postgresql://db/assay"
    assert Settings(home=tmp_path, database_url=url).resolved_database_url == url


def test_settings_do_not_change(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings(home=tmp_path).port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "named", "fix"),
    [
        ({"LEASE_SECONDS": "4"}, "heartbeat_seconds", "below 2, or raise ASSAY_LEASE_SECONDS"),
        ({"HEARTBEAT_SECONDS": "30"}, "heartbeat_seconds", "below 30, or raise ASSAY_LEASE_SECONDS"),
        ({"TICK_SECONDS": "30"}, "lease_seconds", "above 60, or lower ASSAY_TICK_SECONDS"),
        ({"PROGRESS_SECONDS": "59"}, "progress_seconds", "60 or more, or lower ASSAY_LEASE_SECONDS"),
        ({"LEASE_SECONDS": "1000"}, "progress_seconds", "1000 or more, or lower ASSAY_LEASE_SECONDS"),
    ],
)
def test_times_that_do_not_go_together_are_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str, fix: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(f"ASSAY_{name}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    (problem,) = caught.value.errors()
    assert problem["loc"] == (named,)
    assert fix in problem["msg"]


def test_times_that_just_go_together_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEASE": "4.1", "PROGRESS": "4.1", "HEARTBEAT": "2", "TICK": "2"}.items():
        monkeypatch.setenv(f"ASSAY_{name}_SECONDS", value)
    assert Settings().lease_seconds == 4.1
