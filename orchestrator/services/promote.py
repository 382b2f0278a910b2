"""A closed stage: chosen runs get the next stage's target, new variants begin, the others end."""

from dataclasses import replace

from sqlalchemy import Connection

from orchestrator.domain.decisions import DecisionKind, GateOutcome, Judgement, PromoteRule
from orchestrator.domain.evidence import Verdict
from orchestrator.domain.ids import spell
from orchestrator.domain.lifecycle import ExperimentStatus, Reason, RunStatus, StageStatus
from orchestrator.rules.gate import SEED_DONE, close_stage, promote_early
from orchestrator.services.choose import start_around
from orchestrator.services.entering import add_missing_seeds
from orchestrator.services.finish import close_last, end_experiment
from orchestrator.services.gates import (
    Place,
    Seen,
    Sitting,
    anchor_of,
    open_gate,
    record_at,
    rule_inputs,
    see,
    seen_attempts,
)
from orchestrator.services.going_on import go_on
from orchestrator.services.judge import end_run
from orchestrator.services.link import advance, link
from orchestrator.services.protocol import Protocol
from orchestrator.services.shadow import log_shadow
from orchestrator.store import dependents, experiments, journal
from orchestrator.store.records import RunRecord, StageRecord


def close(sitting: Sitting, position: int) -> None:
    """Closes a stage whose runs have all settled. Closing it twice does nothing the second time."""
    stages = sitting.stages
    if stages[position].status is StageStatus.CLOSED:
        return
    if position == len(stages) - 1:
        close_last(sitting, stages[position])
    else:
        _close_gate(sitting, stages[position], stages[position + 1])


def _close_gate(sitting: Sitting, stage: StageRecord, following: StageRecord) -> None:
    every = sitting.runs
    newcomers = _newcomers(sitting, every, stage.position)
    rule = replace(sitting.protocol.rule(following.position), newcomers=newcomers)
    inside = [run for run in every if sitting.protocol.has_been_in(run, stage.position)]
    seen = _see(sitting, inside, stage, rule)
    outcome = close_again(sitting.connection, sitting.protocol, seen, stage.position, rule)
    place = Place(stage.position, stage.steps, "gate")
    gate = open_gate(sitting, f"{stage.name}/gate", place, seen, outcome.conclusion)
    _enter(sitting, every, stage, following, outcome, gate)
    log_shadow(sitting, stage, inside)
    experiments.close_stage(sitting.connection, stage.id, conclusion=outcome.conclusion, now=sitting.now)
    experiments.change_experiment(sitting.connection, sitting.experiment.id, held=None)
    sitting.say("stage_closed", f"stage {stage.name} closed: {outcome.conclusion}")
    start_around(sitting, following.position, outcome.winners, gate)
    if outcome.winners or newcomers:
        experiments.set_stage_status(sitting.connection, following.id, StageStatus.RUNNING)
    else:
        _end_without_winner(sitting, outcome, stage.position)


def _see(sitting: Sitting, chosen: list[RunRecord], stage: StageRecord, rule: PromoteRule) -> Seen:
    out = {run.id: run.status.is_terminal and run.stage == stage.position for run in chosen}
    gone = [run.id for run in chosen if run.stage > stage.position]
    as_of = _as_they_left(sitting, stage.position, gone)
    reference = sitting.experiment.reference_id
    return see(sitting.connection, chosen, out, as_of, rule=rule_inputs(rule), reference=reference)


def _as_they_left(sitting: Sitting, position: int, gone: list[int]) -> dict[int, int]:
    """The attempts of runs that went on early, at that time: one may have fallen back since."""
    found: dict[int, int] = {}
    for gate in journal.gates_of(sitting.connection, sitting.experiment.id) if gone else ():
        if gate.phase == "early" and gate.stage == position:
            found = seen_attempts(gate) | found
    return {id_: number for id_, number in found.items() if id_ in gone}


def _enter(
    sitting: Sitting,
    every: list[RunRecord],
    stage: StageRecord,
    following: StageRecord,
    outcome: GateOutcome,
    gate: int | None,
) -> None:
    """Records what was decided of the runs that are still in the stage, and does it."""
    for run in every:
        judgement = outcome.judgements.get(run.id)
        if judgement is not None and run.stage == stage.position and not run.status.is_terminal:
            record_at(sitting, run, stage, stage.steps, judgement, "gate", gate)
            _apply(sitting, run, judgement, following)
    stays = {id_ for id_, judgement in outcome.judgements.items() if _goes_on(judgement)}
    names = sorted({run.variant for run in every if run.id in stays})
    position = following.position
    for run_id in add_missing_seeds(
        sitting.connection, sitting.protocol, every, names, position, sitting.now
    ):
        link(sitting, run_id)


def _goes_on(judgement: Judgement) -> bool:
    """Whether its variant is in the next stage, if not with this seed."""
    return judgement.kind is DecisionKind.PROMOTE or judgement.reason == SEED_DONE


def _end_without_winner(sitting: Sitting, outcome: GateOutcome, position: int) -> None:
    connection, now = sitting.connection, sitting.now
    for later in sitting.stages[position + 1 :]:
        experiments.close_stage(connection, later.id, conclusion="not opened: no winner", now=now)
    end_experiment(connection, sitting.experiment, ExperimentStatus.SUCCEEDED, outcome.conclusion, now)


def close_again(
    connection: Connection, protocol: Protocol, seen: Seen, position: int, rule: PromoteRule
) -> GateOutcome:
    """What the rules say of a gate, from what it saw."""
    stage = protocol.stage(position)
    anchor = anchor_of(connection, seen.inputs.get("reference"), protocol, stage.steps)
    return close_stage(seen.entrants, stage=stage, promote=rule, policy=protocol.policy, anchor=anchor)


def _newcomers(sitting: Sitting, every: list[RunRecord], position: int) -> bool:
    """Whether new variants begin in a later stage, whatever the gate says."""
    waiting = dependents.dependents_of(sitting.connection, [sitting.experiment.id])
    later = [row for row in waiting if row.status == "waiting" and row.stage > position]
    fresh = [run for run in every if sitting.protocol.begins(run) > position]
    return any(row.kind == "best_of" for row in later) or any(not run.status.is_terminal for run in fresh)


def early(sitting: Sitting, position: int) -> None:
    """Promotes what is certain of a place in the next stage while others are on their way to the gate."""
    stage, following = sitting.stages[position : position + 2]
    every = sitting.runs
    inside = [run for run in every if sitting.protocol.has_been_in(run, position)]
    coming = {run.variant for run in inside if not _arrived(run, stage)}
    waiting = dependents.dependents_of(sitting.connection, [sitting.experiment.id])
    coming |= {row.name for row in waiting if row.status == "waiting" and row.stage == position}
    there = [run for run in inside if run.variant not in coming]
    fresh = [run for run in there if run.stage == position and run.status is RunStatus.AT_GATE]
    if sitting.experiment.control in coming or not fresh:
        return
    rule = sitting.protocol.rule(following.position)
    seen = _see(sitting, there, stage, rule)
    seen = replace(seen, inputs=seen.inputs | {"missing": len(coming)})
    outcome = early_again(sitting.connection, sitting.protocol, seen, position, rule, len(coming))
    if not any(run.id in outcome.judgements for run in fresh):
        return
    key = f"{stage.name}/early-{min(run.id for run in fresh if run.id in outcome.judgements)}"
    gate = open_gate(sitting, key, Place(position, stage.steps, "early"), seen)
    _enter(sitting, every, stage, following, outcome, gate)


def early_again(
    connection: Connection, protocol: Protocol, seen: Seen, position: int, rule: PromoteRule, missing: int
) -> GateOutcome:
    """What the rules say before a gate closes, from what they saw."""
    stage = protocol.stage(position)
    anchor = anchor_of(connection, seen.inputs.get("reference"), protocol, stage.steps)
    return promote_early(
        seen.entrants, missing=missing, stage=stage, promote=rule, policy=protocol.policy, anchor=anchor
    )


def _arrived(run: RunRecord, stage: StageRecord) -> bool:
    """Whether it has its evaluation at the stage's end."""
    at_gate = run.status is RunStatus.AT_GATE and run.target_step >= stage.steps
    return run.stage > stage.position or at_gate or run.status.is_terminal


def hold(sitting: Sitting, position: int) -> None:
    """The gate is due and nobody is there to judge against: it holds until a person says how to go on."""
    stage, every = sitting.stages[position], sitting.runs
    controls = [run for run in every if run.is_control]
    broke = [run for run in controls if run.status is not RunStatus.SUCCEEDED]
    ends = "; ".join(f"{spell('run', run.id)}: {run.detail or run.reason}" for run in broke)
    text = (
        f"the gate of {stage.name} holds: the control {sitting.experiment.control} ended ({ends}). "
        f"Retry it, pin a reference in its place, or cancel the experiment"
    )
    experiments.change_experiment(sitting.connection, sitting.experiment.id, held=text)
    sitting.say("held", text)
    judgement = Judgement(DecisionKind.HOLD, "control_missing", Verdict.INCONCLUSIVE, text)
    times = max((run.epoch for run in controls), default=0)
    for run in every:
        if run.stage == position and run.status is RunStatus.AT_GATE:
            record_at(sitting, run, stage, run.step, judgement, f"held-{times}", None)


def _apply(sitting: Sitting, run: RunRecord, judgement: Judgement, following: StageRecord) -> None:
    """A promoted run goes on in its worker if that is still up; otherwise it queues for a slot."""
    connection, now = sitting.connection, sitting.now
    if judgement.kind is DecisionKind.PROMOTE:
        target = sitting.protocol.target(following.position, sitting.protocol.spec.stages[run.stage].steps)
        go_on(sitting, run, stage=following.position, target_step=target)
        advance(sitting, run.id)
    elif judgement.kind is DecisionKind.FAIL:
        end_run(connection, run, Reason.DIVERGED, judgement.text, now)
    elif run.is_control:
        end_run(connection, run, Reason.FINISHED, judgement.text, now)
    else:
        end_run(connection, run, _ending_reason(judgement), judgement.text, now)


def _ending_reason(judgement: Judgement) -> Reason:
    known = {Reason.PLATEAU, Reason.UNHEALTHY_ROUTING, Reason.OUTRANKED}
    return next((reason for reason in known if reason == judgement.reason), Reason.NOT_PROMOTED)
