"""What readers of the code found: each was seen to go wrong once."""

import math
from dataclasses import replace
from pathlib import Path

from worlds import World, check, falling, spec

from orchestrator.domain.ids import number_of
from orchestrator.protocol.report import Phase, Report
from orchestrator.services import override
from orchestrator.services.context import Trainer
from orchestrator.services.ingest import ingest
from orchestrator.services.preview import preview
from orchestrator.services.query import get_experiment, list_attempts, list_runs
from orchestrator.services.reconcile import tick
from orchestrator.services.report import report
from orchestrator.services.views import RunView
from orchestrator.store.database import Database

BETTER = falling({"wide": -0.20, "wider": -0.10, "slow": 0.30})


def runs_of(world: World, experiment: int) -> dict[str, RunView]:
    return {r.variant: r for r in list_runs(world.context, experiment, limit=500, cursor=None).items}


def test_a_run_that_diverged_once_goes_on_from_its_newest_checkpoint_afterwards(
    either: Database, tmp_path: Path
) -> None:
    broken = {60}

    def loss(variant: str, seed: int, step: int) -> float:
        if variant == "wide" and step in broken:
            broken.clear()
            return math.nan
        return BETTER(variant, seed, step)

    world = World(either, tmp_path / "home", slots=1, loss=loss)
    experiment = world.submit()
    assert world.run_to_end(experiment) == "succeeded"
    wide = next(r for r in report(world.context, experiment).runs if r.variant == "wide")
    assert [attempt.resumed_from_step for attempt in wide.attempt_list] == [0, 40, 100, 200]
    assert [e.step for e in wide.evaluations] == list(range(20, 401, 20))


def test_a_trainer_that_is_no_longer_registered_fails_its_runs_and_no_others(
    either: Database, tmp_path: Path
) -> None:
    world = World(either, tmp_path / "home", loss=BETTER)
    both = {"other": Trainer(("other", "{assignment}"), check), **world.context.trainers}
    world.context = replace(world.context, trainers=both)
    lonely = world.submit(trainer="other", name="lonely")
    world.restart()
    healthy = world.submit()
    assert world.run_to_end(healthy) == "succeeded"
    assert get_experiment(world.context, lonely).status == "failed"
    assert "no longer registered" in (runs_of(world, lonely)["base"].detail or "")


def test_a_paused_experiment_waits_at_its_gate(either: Database, tmp_path: Path) -> None:
    world = World(either, tmp_path / "home", slots=4, loss=BETTER)
    experiment = world.submit()
    world.turn()
    override.pause_experiment(world.context, experiment, "user:ada", "lunch")
    for _ in range(20):
        world.turn()
    assert {run.status for run in runs_of(world, experiment).values()} == {"at_gate"}
    override.resume_experiment(world.context, experiment, "user:ada", "back")
    assert world.run_to_end(experiment) == "succeeded"


def test_the_control_stops_when_nobody_is_left(either: Database, tmp_path: Path) -> None:
    world = World(either, tmp_path / "home", slots=4, loss=BETTER)
    experiment = world.submit()
    while runs_of(world, experiment)["wide"].step < 220:
        world.turn()
    override.stop_run(world.context, number_of("run", runs_of(world, experiment)["wide"].id), "user:ada", "")
    assert world.run_to_end(experiment) == "succeeded"
    control = runs_of(world, experiment)["base"]
    assert (control.status, control.reason) == ("succeeded", "finished")
    assert control.step < 400
    assert (get_experiment(world.context, experiment).conclusion or "").startswith("no_winner")


def test_a_cancelled_experiment_starts_no_worker_any_more(either: Database, tmp_path: Path) -> None:
    world = World(either, tmp_path / "home", loss=BETTER)
    experiment = world.submit()
    world.machine.is_unreachable = True
    tick(world.context)
    override.cancel_experiment(world.context, experiment, "user:ada", "wrong data")
    world.machine.is_unreachable = False
    for _ in range(3):
        world.turn()
    assert not world.machine.starts
    attempts = list_attempts(world.context, 1).items
    assert {attempt.status for attempt in attempts} == {"ended"}


def test_a_report_that_tells_of_divergence_and_of_more_is_taken_in(either: Database, tmp_path: Path) -> None:
    world = World(either, tmp_path / "home", loss=BETTER)
    experiment = world.submit()
    world.turn()
    worker = next(w for w in world.workers.values() if w.assignment.variant == "wide")
    evaluations = [worker.evaluation(step) for step in (20, 40, 60, 80, 100)]
    evaluations[2] = evaluations[2].model_copy(update={"eval_loss": math.nan, "perplexity": math.nan})
    answer = ingest(
        world.context,
        number_of("att", worker.assignment.attempt_id),
        Report(
            epoch=worker.assignment.epoch,
            sequence=2,
            phase=Phase.AT_GATE,
            step=100,
            evaluations=tuple(evaluations),
        ),
    )
    assert answer.directive.kind == "stop"
    assert runs_of(world, experiment)["wide"].status == "pending"


def test_a_variant_with_more_tokens_a_step_is_warned_about(either: Database, tmp_path: Path) -> None:
    world = World(either, tmp_path / "home")

    def sized(config: dict[str, object]) -> object:
        facts = check(config)  # type: ignore[arg-type]
        return facts.model_copy(update={"tokens_per_step": 128 * int(str(facts.config["width"]))})

    trainers = {"builtin": Trainer(("trainer", "{assignment}"), sized)}  # type: ignore[arg-type]
    warnings = preview(replace(world.context, trainers=trainers), spec()).warnings
    assert any("wide trains 1,024 tokens a step and the control 512" in warning for warning in warnings)
