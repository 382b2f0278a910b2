"""Every run beside the control of its seed, at matched steps or tokens."""

from collections.abc import Mapping, Sequence

from orchestrator.domain.curves import Axis, Curve, Unmatched, match
from orchestrator.domain.ids import spell
from orchestrator.protocol.kind import ConfigFacts
from orchestrator.rules.bands import band_view
from orchestrator.rules.policies import Policy
from orchestrator.services import views
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_experiment
from orchestrator.store import experiments, reports, runs
from orchestrator.store.records import RunRecord


def compare(context: Context, experiment_id: int, axis: Axis) -> views.CompareView:
    """One row for each run, one point for each of its evaluations.

    Raises `Missing` for an experiment that is not there.
    """
    with context.database.read() as connection:
        experiment = need_experiment(connection, experiment_id)
        every = runs.runs_of(connection, [experiment_id])
        curves = reports.load_curves(connection, every)
        variants = experiments.get_variants(connection, experiment_id)
    facts = {variant.id: ConfigFacts.model_validate(variant.facts) for variant in variants}
    controls = {run.seed: run for run in every if run.is_control}
    policy = Policy.model_validate(experiment.policy)
    rows = [_row(run, controls.get(run.seed), curves, facts, policy, axis) for run in every]
    return views.CompareView(
        experiment_id=spell("exp", experiment_id), control=experiment.control, axis=axis, rows=rows
    )


def _row(
    run: RunRecord,
    control: RunRecord | None,
    curves: Mapping[int, Curve],
    facts: Mapping[int, ConfigFacts],
    policy: Policy,
    axis: Axis,
) -> views.CompareRow:
    own = facts[run.variant_id]
    anchor = None if control is None else (curves[control.id], facts[control.variant_id])
    return views.CompareRow(
        run_id=spell("run", run.id),
        variant=run.variant,
        seed=run.seed,
        is_control=run.is_control,
        status=run.status,
        params_total=own.parameters_total,
        params_active=own.parameters_active,
        points=_points(curves[run.id], own, anchor, policy, axis),
    )


def _points(
    curve: Curve, own: ConfigFacts, anchor: tuple[Curve, ConfigFacts] | None, policy: Policy, axis: Axis
) -> Sequence[views.ComparePoint]:
    points = []
    for evaluation in curve.evaluations:
        at = evaluation.step if axis == "step" else evaluation.tokens
        found = (
            match(curve, anchor[0], evaluation.step, policy.interpolation_ratio)
            if anchor is not None
            else None
        )
        if anchor is None or found is None or isinstance(found, Unmatched):
            invalid = found.reason if isinstance(found, Unmatched) and found.invalid else None
            points.append(_alone(at, evaluation.eval_loss, invalid))
            continue
        band = band_view(
            found.loss,
            found.other_loss,
            parameters=own.parameters_total,
            control_parameters=anchor[1].parameters_total,
            bands=policy.bands,
            tolerance=policy.tolerance,
        )
        points.append(
            views.ComparePoint(
                at=at,
                eval_loss=found.loss,
                control_loss=found.other_loss,
                gap=found.gap,
                quality_drop_percent=band.quality_drop,
                perplexity_change_percent=band.perplexity_change,
                band=band.band,
                invalid=None,
            )
        )
    return points


def _alone(at: int, loss: float, invalid: str | None) -> views.ComparePoint:
    return views.ComparePoint(
        at=at,
        eval_loss=loss,
        control_loss=None,
        gap=None,
        quality_drop_percent=None,
        perplexity_change_percent=None,
        band=None,
        invalid=invalid,
    )
