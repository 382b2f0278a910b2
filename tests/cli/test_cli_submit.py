"""Submitting: files made complete, retries that are safe."""

import json
from pathlib import Path

import pytest
from cli_rigs import Assay, CannedService
from cli_samples import experiment

from orchestrator.cli.documents import read_document
from orchestrator.cli.errors import BadUsage
from orchestrator.cli.files import configs, locate, read_spec


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_base_and_policy_given_as_paths_are_put_in_place(tmp_path: Path) -> None:
    write(tmp_path / "configs" / "trainer" / "x.json", '{"model": {"width": 8}}')
    write(tmp_path / "configs" / "experiments" / "mine.yaml", "name: mine\n")
    text = "base: configs/trainer/x.json\npolicy: mine.yaml\n"
    spec = write(tmp_path / "configs" / "experiments" / "e.yaml", text)
    assert read_spec(spec) == {"base": {"model": {"width": 8}}, "policy": {"name": "mine"}}


def test_a_policy_by_name_and_a_base_in_place_stay(tmp_path: Path) -> None:
    spec = write(tmp_path / "e.yaml", "base: {a: 1}\npolicy: stage-gate\n")
    assert read_spec(spec) == {"base": {"a": 1}, "policy": "stage-gate"}


def test_beside_the_spec_goes_before_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = write(tmp_path / "specs" / "e.yaml", "")
    write(tmp_path / "here" / "b.json", "{}")
    monkeypatch.chdir(tmp_path / "here")
    assert locate("b.json", spec, "base") == tmp_path / "here" / "b.json"
    beside = write(tmp_path / "specs" / "b.json", "{}")
    assert locate("b.json", spec, "base") == beside


def test_configs_that_came_with_assay_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = write(tmp_path / "e.yaml", "")
    found = locate("configs/policies/stage-gate.json", spec, "policy")
    assert found == configs() / "policies" / "stage-gate.json"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "- 1\n", "holds a list"),
        ("a.yaml", "", "holds nothing"),
        ("a.yaml", "a: [1\n", "line 2"),
        ("a.yaml", "a: 1\na: 2\n", "line 2, column 1: the key `a` is there twice"),
        ("a.yaml", "20: {}\n", 'the key `20` is not text: put it in "quotes"'),
        ("a.yaml", "a: {b: [2026-01-01]}\n", "a.b[0]: 2026-01-01 is a date"),
        ("a.yaml", "a: .nan\n", "a: nan is not a finite number"),
        ("a.yaml", "a: !!python/object:os.system {}\n", "could not determine a constructor"),
        ("a.json", '{"a": 1, "a": 2}', "the key `a` is there twice"),
        ("a.json", '{"a": NaN}', "not a finite number"),
        ("a.json", "{", "line 1, column 2"),
        ("a.yaml", "base: nowhere.json\n", "base: there is no file `nowhere.json`"),
    ],
)
def test_a_file_that_cannot_be_meant_is_bad_usage(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(BadUsage, match=r"a\.yaml|a\.json") as refused:
        read_spec(write(tmp_path / name, text))
    assert said in str(refused.value)


def test_numbers_in_e_notation_are_numbers(tmp_path: Path) -> None:
    text = "a: 1e-4\nb: 3E+2\nc: -.5e3\nd: 1.5\ne: v1e-4\nf: 0x10\n"
    expected = {"a": 1e-4, "b": 300.0, "c": -500.0, "d": 1.5, "e": "v1e-4", "f": 16}
    assert read_document(write(tmp_path / "n.yaml", text)) == expected


def test_submit_sends_the_complete_spec_under_a_key_of_its_own(
    assay: Assay, service: CannedService, tmp_path: Path
) -> None:
    write(tmp_path / "b.json", '{"model": 1}')
    spec = write(tmp_path / "e.yaml", "name: aux\nbase: b.json\n")
    service.routes["POST /v1/experiments"] = (201, experiment())
    assert "assay watch exp_1" in assay("submit", str(spec)).out
    assert json.loads(assay("submit", str(spec), "--name", "again", "--json").out) == experiment()
    first, second = service.requests
    assert first.body == {"name": "aux", "base": {"model": 1}}
    assert second.body["name"] == "again"
    keys = {request.headers["Idempotency-Key"] for request in service.requests}
    assert len(keys) == 2


def test_a_busy_service_is_asked_again_under_the_same_key(
    assay: Assay, service: CannedService, tmp_path: Path
) -> None:
    answers = iter([(503, {"title": "Busy"}), (201, experiment())])
    service.routes["POST /v1/experiments"] = lambda _: next(answers)
    assert assay("submit", str(write(tmp_path / "e.json", "{}"))).code == 0
    assert len({request.headers["Idempotency-Key"] for request in service.requests}) == 1
    assert len(service.requests) == 2
