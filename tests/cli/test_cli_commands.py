"""The commands over real HTTP: what they ask, what they print, how they exit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_rigs import Assay, CannedService
from cli_samples import BEHIND, NOT_SAME, criterion, decision, event, experiment, page, run

from orchestrator.domain.lifecycle import ExperimentStatus

LAZY = ("httpx", "rich", "yaml", "sqlalchemy", "torch", "fastapi", "pydantic")


def test_nothing_heavy_is_imported_before_a_command_is_called() -> None:
    code = f"import sys, orchestrator.cli.main; print([m for m in {LAZY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_service_that_is_away_exits_with_3_and_says_how_to_start_it(
    assay: Assay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_URL", "http://127.0.0.1:9")
    said = assay("ls")
    assert said.code == 3
    assert "http://127.0.0.1:9" in said.err
    assert "assay serve" in said.err


def test_something_else_at_the_address_is_out_of_reach_too(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/slots"] = "<html>"
    said = assay("slots")
    assert said.code == 3
    assert "not Assay" in said.err


def test_a_refusal_prints_title_detail_and_every_field(
    assay: Assay, service: CannedService, tmp_path: Path
) -> None:
    errors = [
        {"field": "control", "message": "is not a variant"},
        {"field": "seeds", "message": "twice"},
    ]
    problem = {"title": "Some fields are not valid", "detail": "two of them", "errors": errors}
    service.routes["POST /v1/plans"] = (422, problem)
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: x\n")
    said = assay("plan", str(spec))
    assert said.code == 1
    assert said.err.splitlines() == [
        "error: Some fields are not valid",
        "two of them",
        "  control: is not a variant",
        "  seeds: twice",
    ]


def test_a_detail_that_only_repeats_the_fields_is_left_out(
    assay: Assay, service: CannedService, tmp_path: Path
) -> None:
    problem = {"title": "Bad", "detail": "a: b", "errors": [{"field": "a", "message": "b"}]}
    service.routes["POST /v1/experiments"] = (422, problem)
    spec = tmp_path / "spec.json"
    spec.write_text("{}")
    assert assay("submit", str(spec)).err.splitlines() == ["error: Bad", "  a: b"]


def test_markup_in_a_refusal_is_printed_as_it_is(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/slots"] = (409, {"title": "[red]no[/]", "detail": "stages[0]"})
    assert assay("slots").err == "error: [red]no[/]\nstages[0]\n"


@pytest.mark.parametrize(
    "arguments",
    [("plan",), ("plan", "no-such-file.yaml"), ("nothing",), ("cancel", "exp_1"), ("report", "exp_1")],
)
def test_bad_usage_exits_with_2(assay: Assay, service: CannedService, arguments: tuple[str, ...]) -> None:
    assert assay(*arguments).code == 2
    assert service.requests == []


@pytest.mark.parametrize("arguments", [("ls", "--url"), ("--url",)])
@pytest.mark.parametrize("url", ["ftp://x", "http://a..b", "http://a\tb", ""])
def test_a_bad_address_is_bad_usage(assay: Assay, arguments: tuple[str, ...], url: str) -> None:
    said = assay(*arguments, url, *([] if "ls" in arguments else ["ls"]))
    assert said.code == 2
    assert said.err.startswith("error: --url: `")
    assert "is no address" in said.err


@pytest.mark.parametrize(
    "arguments", [("ls", "--url", "http://127.0.0.1:9"), ("--url", "http://127.0.0.1:9", "ls")]
)
def test_an_address_out_of_reach_says_that_the_option_named_it(
    assay: Assay, service: CannedService, arguments: tuple[str, ...]
) -> None:
    said = assay(*arguments)
    assert said.code == 3
    assert "http://127.0.0.1:9 (from --url)" in said.err
    assert service.requests == []


def test_the_token_is_sent_and_asked_for(
    assay: Assay, service: CannedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.routes["GET /v1/slots"] = (401, {"title": "A valid token is needed"})
    monkeypatch.setenv("ASSAY_TOKEN", "s3")
    said = assay("slots")
    assert service.requests[0].headers["Authorization"] == "Bearer s3"
    assert said.code == 1
    assert "ASSAY_TOKEN" in said.err


def test_json_is_the_apis_and_pages_are_followed(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/experiments"] = lambda request: (
        page(experiment(number=1))
        if request.query.get("cursor") == "exp_2"
        else page(experiment(number=2), cursor="exp_2")
    )
    said = assay("ls", "--json")
    assert json.loads(said.out) == page(experiment(number=2), experiment(number=1))


def test_ls_fits_into_80_columns(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/experiments"] = page(
        experiment("succeeded", conclusion="a very long conclusion " * 9)
    )
    lines = assay("ls").out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("exp_1  aux   succeeded  screen  2026-01-02 03:04")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "there is no experiment yet: `assay submit FILE` makes one"),
        (("--status", "cancelled"), "no experiment is cancelled"),
        (("--name", "aux"), "no experiment is named `aux`"),
        (("--name", "aux", "--status", "paused"), "no experiment named `aux` is paused"),
    ],
)
def test_ls_says_what_there_is_none_of(
    assay: Assay, service: CannedService, arguments: tuple[str, ...], sentence: str
) -> None:
    service.routes["GET /v1/experiments"] = page()
    assert assay("ls", *arguments).out == f"{sentence}\n"


def test_ls_refuses_a_status_that_is_none(assay: Assay, service: CannedService) -> None:
    said = assay("ls", "--status", "canceled")
    assert said.code == 2
    known = [status.value for status in ExperimentStatus]
    assert [status for status in known if f"'{status}'" not in said.err] == []
    assert service.requests == []


def test_events_are_listed_with_their_variants(assay: Assay, service: CannedService) -> None:
    first, second = event(3, "accepted", "2 variants"), event(7, "retry", "lost at step 40", "run_2")
    after = {"0": page(first), "3": page(second), "7": page()}
    service.routes["GET /v1/experiments/exp_1/events"] = lambda request: after[request.query["after"]]
    service.routes["GET /v1/experiments/exp_1/runs"] = page(run(1, "a"), run(2, "b"), run(3, "b", seed=1))
    lines = assay("events", "exp_1").out.splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "2026-01-02 03:04 accepted – 2 variants",
        "2026-01-02 03:04 retry b/0 lost at step 40",
    ]
    assert json.loads(assay("events", "exp_1", "--json").out) == page(first, second)


def test_decisions_and_why_name_the_seed_where_there_are_several(
    assay: Assay, service: CannedService
) -> None:
    service.routes["GET /v1/experiments/exp_1"] = experiment(spec={"seeds": [0, 1]})
    service.routes["GET /v1/experiments/exp_1/events"] = page()
    service.routes["GET /v1/runs/run_2"] = run(2, "aux-0.0")
    service.routes["GET /v1/decisions"] = page(decision(1))
    assert assay("decisions", "exp_1").out.startswith("dec_1  aux-0.0/0 declined")
    out = assay("why", "run_2").out
    assert out.startswith("aux-0.0/0  run_2")
    assert "\naux-0.0/0 declined at step 1,500" in out


def test_status_shows_stages_and_runs(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/experiments/exp_1"] = experiment()
    service.routes["GET /v1/experiments/exp_1/runs"] = page(run(1, "aux-0.01"), run(2, "aux-0.0"))
    said = assay("status", "exp_1")
    assert "How much balance loss?" in said.out
    assert "+0.078" in said.out
    assert json.loads(assay("status", "exp_1", "--json").out) == experiment()


def test_why_tells_the_latest_decision_first_with_nested_criteria(
    assay: Assay, service: CannedService
) -> None:
    early = decision(1, "continue", text="it is too early to stop", step=500)
    note = event(3, "retry", "out of memory: attempt 2 of 3", "run_2") | {"at": "2026-01-01T00:00:00Z"}
    service.routes["GET /v1/experiments/exp_1"] = experiment()
    service.routes["GET /v1/runs/run_2"] = run(2, "aux-0.0", status="stopped", detail="not promoted")
    service.routes["GET /v1/decisions"] = page(early, decision(2, created_at="2026-01-03T00:00:00Z"))
    service.routes["GET /v1/experiments/exp_1/events"] = lambda request: page(
        *([note] if request.query["after"] == "0" else [])
    )
    out = " ".join(assay("why", "run_2").out.split())
    parts = [
        "not promoted",
        "aux-0.0 declined at step 1,500 (screen)",
        f"not eligible at the gate of screen: {BEHIND}",
        "✗ fail promote: needs any of these",
        f"✗ fail beats control: {BEHIND}",
        "✗ fail all: needs all of these",
        f"✗ fail same loss: {NOT_SAME}",
        "aux-0.0 goes on at step 500 (screen)",
        "it is too early to stop",
        "retry: out of memory: attempt 2 of 3",
    ]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)


def test_logs_go_on_from_the_offset_until_the_run_has_ended(assay: Assay, service: CannedService) -> None:
    states = iter(["running", "running", "stopped", "stopped", "stopped", "stopped"])
    chunks = {"0": ("a\n", 2), "2": ("", 2)}
    asked = 0

    def logs(request: object) -> object:
        nonlocal asked
        asked += 1
        offset = getattr(request, "query")["offset"]  # noqa: B009
        text, after = ("b [x]\n", 8) if asked == 3 else chunks.get(offset, ("", int(offset)))
        return {"text": text, "next_offset": after}

    service.routes["GET /v1/runs/run_2"] = lambda _: run(2, "aux-0.0", status=next(states))
    service.routes["GET /v1/runs/run_2/logs"] = logs
    assert assay("logs", "run_2", "-f").out == "a\nb [x]\n"


def test_a_person_signs_with_a_reason(assay: Assay, service: CannedService) -> None:
    service.routes["POST /v1/runs/run_2/promote"] = run(2, "aux-0.0", status="pending")
    said = assay("promote", "run_2", "--reason", "looks good")
    assert said.code == 0
    assert service.requests[0].body["reason"] == "looks good"
    assert said.out == "run_2 (aux-0.0) is pending (screen, step 500 of 1,000)\n"


def test_compare_shows_the_band_or_why_there_is_none(assay: Assay, service: CannedService) -> None:
    point = {
        "at": 500,
        "eval_loss": 5.656,
        "control_loss": 5.576,
        "gap": 0.08,
        "quality_drop_percent": 1.43,
        "band": "excellent",
        "invalid": None,
    }
    other = {**point, "at": 1000, "band": None, "invalid": "another evaluation set"}
    row = {
        "run_id": "run_2",
        "variant": "half",
        "seed": 0,
        "is_control": False,
        "status": "running",
        "params_total": 62_000_000,
        "params_active": 1234,
        "points": [point, other],
    }
    view = {"experiment_id": "exp_1", "control": "aux-0.01", "axis": "tokens", "rows": [row]}
    service.routes["GET /v1/experiments/exp_1/compare"] = view
    out = assay("compare", "exp_1", "--axis", "tokens").out
    assert service.requests[0].query == {"axis": "tokens"}
    assert "62M parameters, 1.23k active" in out
    assert "+0.080   +1.43  excellent" in out
    assert "not comparable: another" in out


def test_plan_shows_warnings(assay: Assay, service: CannedService, tmp_path: Path) -> None:
    stage = {
        "name": "screen",
        "steps": 1000,
        "evaluations": 2,
        "entrants": "1 variant",
        "seeds": [0],
        "points": [300, 600],
        "most_runs": 1,
        "new_runs": 1,
        "most_steps": 1000,
    }
    variant = {
        "name": "aux-0.01",
        "stage": "screen",
        "is_control": True,
        "overrides": {},
        "config_hash": "ab",
        "params_total": 5,
        "params_active": 5,
        "flops_per_token": 1.0,
    }
    waiting = {
        "name": "top1",
        "stage": "screen",
        "kind": "best_of",
        "sources": ["aux-0.01"],
        "overrides": {"moe.top_k": 1},
        "status": "waiting",
        "detail": None,
    }
    service.routes["POST /v1/plans"] = {
        "name": "aux",
        "control": "aux-0.01",
        "policy": {"name": "stage-gate", "hash": "ab"},
        "spec_hash": "cd",
        "stages": [stage],
        "variants": [variant],
        "waiting": [waiting],
        "left_out": ["lr-1 is the config of aux-0.01: it is not trained again"],
        "seeds": [0],
        "runs": 1,
        "most_runs": 2,
        "slot_hours": 1.5,
        "most_steps": 1000,
        "tokens_per_step": 256,
        "warnings": ["the stop rule cannot fire in screen"],
    }
    spec = tmp_path / "spec.yaml"
    spec.write_text("name: aux\n")
    out = assay("plan", str(spec)).out
    assert "at most 2 runs and 1,000 training steps of 256 tokens, 1.5 slot-hours" in out
    assert "the best of aux-0.01, with moe.top_k = 1" in out
    assert "in screen variants are compared with each other at step 300, 600" in out
    assert "lr-1 is the config of aux-0.01" in out
    assert "warning: the stop rule cannot fire in screen" in out


def test_policies_slots_and_decisions(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/policies"] = page(
        {"name": "stage-gate", "version": 1, "hash": "ab" * 32, "document": {"description": "As written."}}
    )
    slot = {"id": "cpu:0", "kind": "cpu", "device": "CPU", "run_id": None, "variant": None}
    service.routes["GET /v1/slots"] = page(slot)
    service.routes["GET /v1/decisions"] = page(decision(7, criteria=[criterion("guard", "pass", "ok")]))
    service.routes["GET /v1/experiments/exp_1"] = experiment()
    assert "As written." in assay("policies").out
    assert "cpu:0" in assay("slots").out
    out = assay("decisions", "exp_1", "--kind", "decline").out
    assert {"experiment_id": "exp_1", "kind": "decline", "limit": "500"} in [
        r.query for r in service.requests
    ]
    assert "dec_7  aux-0.0 declined at step 1,500 (screen)" in out
    assert assay("decisions", "exp_1", "--kind", "maybe").code == 2
