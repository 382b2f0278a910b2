"""A second policy looks on: what it would have decided is logged when a stage closes, and nothing is done."""

from dataclasses import replace

from orchestrator.rules.policies import Policy, policy_hash
from orchestrator.rules.shadow import ENDS, Logged, Shadow, look_on
from orchestrator.services.gates import Sitting, anchor_of
from orchestrator.services.protocol import make_protocol, plan_order
from orchestrator.store import journal
from orchestrator.store.histories import load_curves
from orchestrator.store.records import RunRecord, StageRecord


def log_shadow(sitting: Sitting, stage: StageRecord, entrants: list[RunRecord]) -> None:
    """Logs what the experiment's shadow would have decided in a stage that closes, if it has a shadow."""
    if sitting.experiment.shadow is None:
        return
    policy = Policy.model_validate(sitting.experiment.shadow)
    gone = _gone(sitting)
    chosen = [run for run in entrants if run.id not in gone]
    curves = load_curves(sitting.connection, chosen)
    stamp = journal.PolicyStamp(policy.name, policy_hash(policy))
    by_id = {run.id: run for run in chosen}
    for logged in look_on(_shadow(sitting, stage, policy), curves):
        _log(sitting, stage, by_id[logged.run_id], logged, stamp)


def _shadow(sitting: Sitting, stage: StageRecord, policy: Policy) -> Shadow:
    protocol = make_protocol(sitting.protocol.spec, policy)
    position = stage.position
    last = position == len(protocol.spec.stages) - 1
    return Shadow(
        policy=policy,
        grid=protocol.grid,
        order=plan_order(protocol.spec),
        stage=protocol.stage(position),
        begins=protocol.spec.stages[position - 1].steps if position else 0,
        rule=None if last else replace(protocol.rule(position + 1), eager=False),
        anchor=anchor_of(sitting.connection, sitting.experiment.reference_id, protocol, stage.steps),
    )


def _gone(sitting: Sitting) -> set[int]:
    """Runs that the shadow ended in an earlier stage."""
    logged = journal.list_decisions(
        sitting.connection, experiment_id=sitting.experiment.id, limit=journal.MOST, shadow=True
    )
    return {row.run_id for row in logged if row.kind in ENDS}


def _log(
    sitting: Sitting, stage: StageRecord, run: RunRecord, logged: Logged, stamp: journal.PolicyStamp
) -> None:
    journal.add_decision(
        sitting.connection,
        key=f"shadow/run:{run.id}/{stage.name}/{logged.step}/{logged.phase}",
        experiment=sitting.experiment,
        run_id=run.id,
        stage=stage.name,
        step=logged.step,
        judgement=logged.judgement,
        now=sitting.now,
        shadow=stamp,
    )
