"""Following an experiment: the pure model and picture, then the loop over real HTTP."""

import json

import pytest
from cli_rigs import Assay, CannedService
from cli_samples import BEHIND, decision, experiment, page, run, stage
from rich.console import Console

from orchestrator.cli import watch
from orchestrator.cli.bars import render
from orchestrator.cli.client import Json
from orchestrator.cli.progress import Look, Watched, changes, told


def look(at: float = 0.0, runs: list[Json] | None = None, **changes: object) -> Look:
    made = runs if runs is not None else [run(1, "aux-0.01"), run(2, "aux-0.0")]
    return Look(experiment(**changes), made, [], at)  # type: ignore[arg-type]


def picture(watched: Watched, width: int = 80, room: int = 40, away: str = "") -> list[str]:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render(watched, room, width, away))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_picture_fits_into_80_columns() -> None:
    runs = [
        run(1, "aux-0.01"),
        run(2, "a-very-long-name-of-a-variant-indeed", status="at_gate", step=1000),
        run(3, "fresh", step=0, status="pending", tokens_per_second=None, gap=None),
    ]
    lines = picture(Watched().then(look(runs=runs)))
    assert all(len(line) <= 80 for line in lines)
    assert lines[1] == "aux (exp_1) is running"
    assert lines[2].split() == ["variant", "stage", "step", "status", "loss", "gap", "tok/s", "left"]
    assert "500/1k running 4.357 control   10k 0:50" in lines[3]
    assert "…" in lines[4]
    assert lines[5].split()[-6:] == ["0/1k", "pending", "–", "–", "–", "–"]


def test_runs_at_work_go_first_when_there_is_little_room() -> None:
    runs = [run(n, f"v{n}", status="stopped") for n in range(8)] + [run(9, "busy")]
    lines = picture(Watched().then(look(runs=runs)), room=2, away="the service is away")
    assert any(line.startswith("busy") for line in lines)
    assert lines[-2:] == ["and 7 more: `assay status exp_1`", "the service is away"]


def test_seeds_are_shown_where_there_are_several() -> None:
    lines = picture(Watched().then(look(runs=[run(1, "a"), run(2, "a", seed=1)])))
    assert [line.split()[0] for line in lines[3:]] == ["a/0", "a/1"]


def test_the_time_left_is_by_tokens_or_by_the_steps_seen() -> None:
    known = run(1, "a", step=500, tokens_per_second=10_000.0)
    assert Watched().then(look(runs=[known])).eta(known) == pytest.approx(50.0)
    early, later = run(1, "a", step=0), run(1, "a", step=100, last_evaluation=None)
    watched = Watched().then(look(0.0, [early])).then(look(10.0, [later]))
    assert watched.eta(later) == pytest.approx(90.0)
    assert Watched().then(look(runs=[early])).eta(early) is None
    done = run(1, "a", status="stopped")
    assert watched.then(look(20.0, [done])).eta(done) is None


@pytest.mark.parametrize("status", ["starting", "pending"])
def test_what_does_not_train_shows_no_pace_of_an_earlier_attempt(status: str) -> None:
    again = run(1, "a", status=status, tokens_per_second=10_000.0)
    watched = Watched().then(look(0.0, [run(1, "a", step=400)])).then(look(10.0, [again]))
    assert picture(watched)[3].split()[-5:] == [status, "4.357", "+0.078", "–", "–"]
    slow = run(1, "a", step=510, last_evaluation=None)
    assert watched.then(look(20.0, [slow])).eta(slow) == pytest.approx(490.0)


def test_a_decision_names_the_seed_where_there_are_several() -> None:
    seen = Look(experiment(), [run(1, "a"), run(2, "a", seed=1)], [decision(1)], 0.0)
    assert [sentence.split(" ")[0] for _, sentence in told(seen, every=False)] == ["aux-0.0/0"]


def test_changes_are_told_once() -> None:
    first = look(runs=[run(1, "a", status="pending", step=0)])
    assert list(changes(None, first)) == ["stage screen is running", "a is pending (screen, step 0/1,000)"]
    assert list(changes(first, first)) == []
    closed = [stage("screen", 1000, "closed"), stage("confirm", 5000, "running")]
    after = look(runs=[run(1, "a", step=10)], stages=closed)
    assert list(changes(first, after)) == [
        "stage screen is closed: screen promotes aux-0.0, of 2 ranked",
        "stage confirm is running",
        "a is running (screen, step 10/1,000)",
    ]


def test_a_decision_is_one_sentence_with_what_settled_it() -> None:
    made = [decision(1), decision(2, "continue"), decision(3, "stop", author="user:ada", text="enough")]
    seen = Look(experiment(), [], made, 0.0)
    assert list(told(seen, every=False)) == [
        (
            "decline",
            f"aux-0.0 declined at step 1,500 (screen): not eligible at the gate of screen: {BEHIND}",
        ),
        ("stop", "aux-0.0 stopped at step 1,500 (screen) by ada: enough"),
    ]
    assert len(list(told(seen, every=True))) == 3


def follow_routes(service: CannedService, *statuses: str) -> None:
    """An experiment that has these statuses, one at each look; its one decision falls at the second."""
    looks = [0]

    def show(_: object) -> object:
        looks[0] += 1
        return experiment(statuses[min(looks[0], len(statuses)) - 1])

    service.routes["GET /v1/experiments/exp_1"] = show
    service.routes["GET /v1/experiments/exp_1/runs"] = page(run(2, "aux-0.0"))
    service.routes["GET /v1/decisions"] = lambda request: (
        page() if looks[0] < 2 or "cursor" in request.query else page(decision(4))
    )


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.01)


@pytest.mark.parametrize(("end", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_watch_prints_lines_and_exits_as_the_experiment_did(
    assay: Assay, service: CannedService, end: str, code: int
) -> None:
    follow_routes(service, "running", "running", "running", end)
    said = assay("watch", "exp_1")
    assert said.code == code
    assert said.out.splitlines() == [
        "stage screen is running",
        "aux-0.0 is running (screen, step 500/1,000)",
        f"decision: aux-0.0 declined at step 1,500 (screen): not eligible at the gate of screen: {BEHIND}",
        f"aux (exp_1) {end}: aux-0.0 is the winner",
    ]


def test_watch_as_json_is_a_line_for_each_decision_and_the_end(assay: Assay, service: CannedService) -> None:
    follow_routes(service, "running", "running", "succeeded")
    lines = assay("watch", "exp_1", "--json").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["dec_4", "exp_1"]


def test_a_service_that_is_away_for_a_while_is_waited_for(assay: Assay, service: CannedService) -> None:
    follow_routes(service, "running", "running", "succeeded")
    show = service.routes["GET /v1/experiments/exp_1"]
    answers = iter([(503, {"title": "Busy"}), (503, {"title": "Busy"})])
    service.routes["GET /v1/experiments/exp_1"] = lambda request: next(answers, None) or show(request)
    said = assay("watch", "exp_1")
    assert said.code == 0
    assert said.out.splitlines()[:2] == ["Busy; trying again for 60 s", "the service answers again"]


def test_patience_ends(assay: Assay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setenv("ASSAY_URL", "http://127.0.0.1:9")
    assert assay("watch", "exp_1").code == 3


def test_ctrl_c_detaches(assay: Assay, service: CannedService) -> None:
    follow_routes(service, "running")

    def interrupt(*_: object, **__: object) -> Json:
        raise KeyboardInterrupt

    service.routes["POST /v1/experiments"] = (201, experiment())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.cli.reads.follow", interrupt)
        said = assay("watch", "exp_1")
    assert said.code == 130
    assert "assay watch exp_1" in said.out
