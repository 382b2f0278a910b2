"""What the tests of the live protocol ask of a world: its runs, its decisions, its events, in few words."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from worlds import World

from orchestrator.domain.ids import number_of
from orchestrator.protocol.wire import JsonObject
from orchestrator.store import dependents, experiments, journal, runs
from orchestrator.store.records import (
    DecisionRecord,
    DependentRow,
    ExperimentRecord,
    RunRecord,
    StageRecord,
)

Row = tuple[str, int, str, int, str, str, str, str, str, str]
"""Variant, seed, stage, step, kind, reason, verdict, sentence, criteria, evidence."""


def runs_of(world: World, experiment: int) -> dict[tuple[str, int], RunRecord]:
    """Every run by variant and seed."""
    with world.database.read() as connection:
        return {(run.variant, run.seed): run for run in runs.runs_of(connection, [experiment])}


def finish(world: World, experiment: int, turns: int = 400) -> str:
    """The experiment's final status. Fails when it does not end."""
    for _ in range(turns):
        if row_of(world, experiment).status.is_terminal:
            return str(row_of(world, experiment).status)
        world.turn()
    raise AssertionError(f"it did not end: {ends(world, experiment)}")


def stages_of(world: World, experiment: int) -> list[StageRecord]:
    with world.database.read() as connection:
        return experiments.get_stages(connection, [experiment])


def conclusion(world: World, experiment: int) -> str:
    return row_of(world, experiment).conclusion or ""


def ends(world: World, experiment: int) -> dict[str, tuple[str, str | None, int]]:
    """(status, reason, step) of each run, by variant; with `/seed` where it is not 0."""
    return {
        name if seed == 0 else f"{name}/{seed}": (run.status, run.reason, run.step)
        for (name, seed), run in runs_of(world, experiment).items()
    }


def decisions(world: World, experiment: int) -> list[tuple[tuple[str, int], DecisionRecord]]:
    """Every decision in the order in which it was recorded, with the variant and seed of its run."""
    with world.database.read() as connection:
        names = {run.id: (run.variant, run.seed) for run in runs.runs_of(connection, [experiment])}
        found = journal.list_decisions(connection, experiment_id=experiment, limit=100_000)
    return [(names[decision.run_id], decision) for decision in found]


def decision_log(world: World, experiment: int) -> list[Row]:
    """The rules' decisions without ids and times, sorted: equal for experiments that were decided alike."""
    return sorted(
        (
            name,
            seed,
            d.stage,
            d.step,
            d.kind,
            d.reason,
            d.verdict,
            d.text,
            json.dumps(d.criteria, sort_keys=True),
            json.dumps(d.evidence, sort_keys=True),
        )
        for (name, seed), d in decisions(world, experiment)
        if d.author == journal.POLICY
    )


def decided(world: World, experiment: int, variant: str, *kinds: str) -> list[DecisionRecord]:
    """The decisions on a variant, oldest first; of some kinds only, if they are named."""
    found = [d for (name, _), d in decisions(world, experiment) if name == variant]
    return [d for d in found if not kinds or d.kind in kinds]


def waiters(world: World, experiment: int) -> dict[str, DependentRow]:
    """The variants that wait or waited for a result, by name."""
    with world.database.read() as connection:
        return {row.name: row for row in dependents.dependents_of(connection, [experiment])}


def row_of(world: World, experiment: int) -> ExperimentRecord:
    with world.database.read() as connection:
        found = experiments.get_experiment(connection, experiment)
    assert found is not None
    return found


def config_of(world: World, experiment: int, variant: str) -> JsonObject:
    with world.database.read() as connection:
        return next(v.config for v in experiments.get_variants(connection, experiment) if v.name == variant)


def events(world: World, experiment: int, *kinds: str) -> list[str]:
    with world.database.read() as connection:
        found = journal.list_events(connection, experiment_id=experiment, limit=10_000)
    return [event.text for event in found if not kinds or event.kind in kinds]


def stage(name: str, steps: int, variants: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "steps": steps, "variants": dict(variants or {}), **more}


def best_of(*sources: str, **overrides: Any) -> dict[str, Any]:
    """A variant that starts from the best of others."""
    return {"from": {"best_of": list(sources)}, "set": overrides}


def first_step(world: World, experiment: int, variant: str) -> int | None:
    """The step that a variant's first attempt began at."""
    started = [w for w in world.workers.values() if w.assignment.variant == variant]
    started = [w for w in started if number_of("exp", w.assignment.experiment_id) == experiment]
    return (started[0].reported[0] - started[0].assignment.eval_every) if started else None


def turns(world: World, count: int) -> None:
    for _ in range(count):
        world.turn()


def stop_worker(world: World, variant: str, code: int = -9, *, seed: int = 0) -> bool:
    """Kills the live worker of a variant; whether there was one."""
    for key, worker in world.workers.items():
        named = (worker.assignment.variant, worker.assignment.seed) == (variant, seed)
        if named and worker.exited is None and not world.machine.workers[key].state.is_over:
            world.end(key, worker, code)
            return True
    return False


def sequence_of(world: World, experiment: int, names: Sequence[str]) -> list[str]:
    """These variants in the order in which their gate decision was recorded."""
    rows = [n for (n, _), d in decisions(world, experiment) if d.kind in {"promote", "decline"}]
    return [name for name in rows if name in names]
