"""Every run beside the control of its seed, and every variant over its seeds, at matched steps or tokens."""

from collections.abc import Sequence
from statistics import median

from sqlalchemy import Connection

from orchestrator.domain.curves import Axis, Match, Unmatched, trained_evaluations
from orchestrator.domain.ids import spell
from orchestrator.protocol.kind import ConfigFacts
from orchestrator.protocol.report import Evaluation
from orchestrator.rules.bands import band_view
from orchestrator.rules.policies import Policy
from orchestrator.services import views_compare as views
from orchestrator.services.compare_pairs import Pair, matched_to, pair_up
from orchestrator.services.compare_variants import compare_variants
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_experiment
from orchestrator.services.references import reference_curve
from orchestrator.store import curves as stored
from orchestrator.store import experiments, histories, runs
from orchestrator.store.records import ExperimentRecord


def compare(context: Context, experiment_id: int, axis: Axis) -> views.CompareView:
    """One row for each run with a point for each of its evaluations, and one summary for each variant.

    Raises `Missing` for an experiment that is not there.
    """
    with context.database.read() as connection:
        return compare_experiment(connection, need_experiment(connection, experiment_id), axis)


def compare_experiment(connection: Connection, record: ExperimentRecord, axis: Axis) -> views.CompareView:
    """As `compare`, within a snapshot that the caller holds."""
    every = runs.runs_of(connection, [record.id])
    curves = histories.load_curves(connection, every)
    variants = experiments.get_variants(connection, record.id)
    facts = {variant.id: ConfigFacts.model_validate(variant.facts) for variant in variants}
    policy = Policy.model_validate(record.policy)
    row = None if record.reference_id is None else stored.get_curve(connection, record.reference_id)
    pairs = pair_up(every, curves, facts, None if row is None else reference_curve(row))
    return views.CompareView(
        experiment_id=spell("exp", record.id),
        control=record.control,
        reference=None if row is None else row.name,
        axis=axis,
        variants=compare_variants(pairs, policy, axis),
        rows=[_row(pair, policy, axis) for pair in pairs],
    )


def _row(pair: Pair, policy: Policy, axis: Axis) -> views.CompareRow:
    run, curve = pair.run, pair.curve
    measured = trained_evaluations(curve)
    memory = [e.peak_memory_bytes for e in measured if e.peak_memory_bytes is not None]
    return views.CompareRow(
        run_id=spell("run", run.id),
        variant=run.variant,
        seed=run.seed,
        is_control=run.is_control,
        status=run.status,
        params_total=pair.facts.parameters_total,
        params_active=pair.facts.parameters_active,
        flops_per_token=pair.facts.flops_per_token,
        tokens_per_second=median(e.tokens_per_second for e in measured) if measured else None,
        peak_memory_bytes=max(memory, default=None),
        wall_seconds=measured[-1].wall_seconds if measured else None,
        device=curve.identity.device if curve.identity else None,
        points=_points(pair, policy, axis),
    )


def _points(pair: Pair, policy: Policy, axis: Axis) -> Sequence[views.ComparePoint]:
    points = []
    for evaluation in pair.curve.evaluations:
        found = matched_to(pair, evaluation.step, policy.interpolation_ratio)
        if isinstance(found, Match):
            points.append(_beside(found, evaluation, pair, policy, axis))
        else:
            points.append(_alone(evaluation, found, axis))
    return points


def _beside(
    found: Match, evaluation: Evaluation, pair: Pair, policy: Policy, axis: Axis
) -> views.ComparePoint:
    control = pair.control_facts or pair.facts
    band = band_view(
        found.loss,
        found.other_loss,
        parameters=pair.facts.parameters_total,
        control_parameters=control.parameters_total,
        bands=policy.bands,
        tolerance=policy.tolerance,
    )
    return views.ComparePoint(
        at=getattr(evaluation, axis),
        eval_loss=found.loss,
        control_loss=found.other_loss,
        gap=found.gap,
        quality_drop_percent=band.quality_drop,
        perplexity_change_percent=band.perplexity_change,
        band=band.band,
        invalid=None,
    )


def _alone(evaluation: Evaluation, why: Unmatched, axis: Axis) -> views.ComparePoint:
    return views.ComparePoint(
        at=getattr(evaluation, axis),
        eval_loss=evaluation.eval_loss,
        control_loss=None,
        gap=None,
        quality_drop_percent=None,
        perplexity_change_percent=None,
        band=None,
        invalid=why.reason if why.invalid else None,
        waiting=None if why.invalid else why.reason,
    )
