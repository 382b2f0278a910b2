"""Rows -> views. Nothing is decided here."""

from collections.abc import Sequence

from pydantic import TypeAdapter

from orchestrator.domain.ids import spell
from orchestrator.protocol.kind import ConfigFacts
from orchestrator.protocol.report import Evaluation
from orchestrator.rules.budget import SECONDS, Account
from orchestrator.services import views
from orchestrator.store.records import (
    AttemptRecord,
    DecisionRecord,
    DependentRow,
    EventRecord,
    ExperimentRecord,
    RunRecord,
    StageRecord,
    VariantRecord,
)

_CRITERIA = TypeAdapter(list[views.CriterionView])


def stage(record: StageRecord) -> views.StageView:
    return views.StageView(
        name=record.name,
        steps=record.steps,
        status=record.status,
        closed_at=record.closed_at,
        conclusion=record.conclusion,
    )


def experiment(record: ExperimentRecord, stages: Sequence[StageRecord]) -> views.ExperimentView:
    return views.ExperimentView(
        id=spell("exp", record.id),
        name=record.name,
        question=record.question,
        status=record.status,
        conclusion=record.conclusion,
        held=record.held,
        priority=record.priority,
        reference=None if record.reference_id is None else spell("ref", record.reference_id),
        shadow=None if record.shadow is None else str(record.shadow["name"]),
        control=record.control,
        policy=views.PolicyName(name=str(record.policy["name"]), hash=record.policy_hash),
        spec=record.spec,
        spec_hash=record.spec_hash,
        stages=[stage(row) for row in stages if row.experiment_id == record.id],
        created_at=record.created_at,
        ended_at=record.ended_at,
    )


def waiting(row: DependentRow, stages: Sequence[StageRecord]) -> views.WaitingVariant:
    return views.WaitingVariant(
        name=row.name,
        stage=stages[row.stage].name,
        kind=row.kind,
        sources=row.sources,
        overrides=row.overrides,
        status=row.status,
        detail=row.detail,
    )


def budget(account: Account) -> views.BudgetView:
    return views.BudgetView(
        slot_hours=account.limit / SECONDS,
        spent=account.spent / SECONDS,
        committed=account.committed / SECONDS,
    )


def evaluation(measured: Evaluation, attempt: int) -> views.EvaluationView:
    return views.EvaluationView(**measured.model_dump(), attempt=attempt)


def run(
    record: RunRecord,
    variant: VariantRecord,
    stages: Sequence[StageRecord],
    last: views.EvaluationView | None,
    *,
    best: float | None,
    attempts: int,
    gap: float | None,
) -> views.RunView:
    facts = ConfigFacts.model_validate(variant.facts)
    return views.RunView(
        id=spell("run", record.id),
        experiment_id=spell("exp", record.experiment_id),
        variant=record.variant,
        seed=record.seed,
        is_control=record.is_control,
        status=record.status,
        reason=record.reason,
        detail=record.detail,
        stage=stages[record.stage].name,
        step=record.step,
        target_step=record.target_step,
        attempts=attempts,
        params_total=facts.parameters_total,
        params_active=facts.parameters_active,
        flops_per_token=facts.flops_per_token,
        tokens_per_second=record.tokens_per_second,
        best_eval_loss=best,
        last_evaluation=last,
        gap=gap,
        config=variant.config,
        config_hash=variant.config_hash,
        origin=variant.origin,
        linked_run_id=None if record.linked_run_id is None else spell("run", record.linked_run_id),
        created_at=record.created_at,
        ended_at=record.ended_at,
    )


def attempt(record: AttemptRecord) -> views.AttemptView:
    return views.AttemptView(
        id=spell("att", record.id),
        run_id=spell("run", record.run_id),
        number=record.number,
        status=record.status,
        slots=record.slots,
        resumed_from_step=record.resumed_from_step,
        step=record.step,
        exit_code=record.exit_code,
        reason=record.reason,
        detail=record.detail,
        created_at=record.created_at,
        ended_at=record.ended_at,
    )


def decision(record: DecisionRecord, run: RunRecord) -> views.DecisionView:
    return views.DecisionView(
        id=spell("dec", record.id),
        experiment_id=spell("exp", record.experiment_id),
        run_id=spell("run", record.run_id),
        variant=run.variant,
        seed=run.seed,
        stage=record.stage,
        step=record.step,
        kind=record.kind,
        reason=record.reason,
        author=record.author,
        verdict=record.verdict,
        text=record.text,
        criteria=_CRITERIA.validate_python(record.criteria),
        evidence=record.evidence,
        policy=views.PolicyName(name=record.policy_name, hash=record.policy_hash),
        created_at=record.created_at,
    )


def event(record: EventRecord) -> views.EventView:
    return views.EventView(
        id=record.id,
        kind=record.kind,
        experiment_id=None if record.experiment_id is None else spell("exp", record.experiment_id),
        run_id=None if record.run_id is None else spell("run", record.run_id),
        text=record.text,
        at=record.at,
    )
