"""A point: all runs have come to one step, the field is compared there, and each goes on or leaves."""

from pydantic import JsonValue
from sqlalchemy import Connection

from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.lifecycle import Reason, RunStatus
from orchestrator.rules.point import judge_point
from orchestrator.services.gates import Place, Seen, Sitting, open_gate, record_at, see
from orchestrator.services.going_on import go_on
from orchestrator.services.judge import end_run
from orchestrator.services.link import advance
from orchestrator.services.protocol import Protocol, plan_order
from orchestrator.store.records import RunRecord
from orchestrator.store.reports import load_evaluations


def judge_field(sitting: Sitting, position: int, step: int) -> None:
    """Decides about every run of the stage that waits at `step`."""
    every = sitting.runs
    waiting = [run for run in every if _waits(run, position, step)]
    if not waiting:
        return
    there = _in_the_field(sitting.connection, every, waiting, step)
    judged_here: list[JsonValue] = [run.id for run in waiting]
    seen = see(sitting.connection, there, {run.id: False for run in there}, judged=judged_here)
    stage = sitting.stages[position]
    gate = open_gate(
        sitting, f"{stage.name}/{step}/point-{waiting[0].id}", Place(position, step, "point"), seen
    )
    judged = judge_again(seen, sitting.protocol, position, step)
    for run in waiting:
        record_at(sitting, run, stage, step, judged[run.id], "point", gate)
        _apply(sitting, run, judged[run.id], step)


def judge_again(seen: Seen, protocol: Protocol, position: int, step: int) -> dict[int, Judgement]:
    """What the rules say of a point, from what it saw."""
    return judge_point(
        seen.entrants,
        step=step,
        stage=protocol.stage(position),
        grid=protocol.grid,
        order=plan_order(protocol.spec),
        policy=protocol.policy,
    )


def _waits(run: RunRecord, position: int, step: int) -> bool:
    return run.stage == position and run.status is RunStatus.AT_GATE and run.target_step == step


def _in_the_field(
    connection: Connection, every: list[RunRecord], waiting: list[RunRecord], step: int
) -> list[RunRecord]:
    """Those that wait here, and those that came past this step before: they were in the race at it."""
    ids = {run.id for run in waiting}
    others = [run for run in every if run.id not in ids]
    measured = load_evaluations(connection, [run.id for run in others])
    steps = {id_: {evaluation.step for evaluation, _ in found} for id_, found in measured.items()}
    passed = {run.id for run in others if step in steps[run.id] and max(steps[run.id]) > step}
    return [run for run in every if run.id in ids or run.id in passed]


def _apply(sitting: Sitting, run: RunRecord, judgement: Judgement, step: int) -> None:
    """A run that stays goes on in its worker if that is still up; otherwise it queues for a slot."""
    connection = sitting.connection
    if judgement.kind is DecisionKind.STOP:
        reason = Reason.OUTRANKED if judgement.reason == Reason.OUTRANKED else Reason.PLATEAU
        end_run(connection, run, reason, judgement.text, sitting.now)
        return
    go_on(sitting, run, stage=run.stage, target_step=sitting.protocol.target(run.stage, step))
    advance(sitting, run.id)
