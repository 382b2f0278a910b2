"""The inputs of a decision, frozen as JSON: what was compared, so that it can be checked by hand."""

import math
from collections.abc import Mapping

from pydantic import JsonValue

from orchestrator.domain.curves import Curve, Unmatched, best_so_far, latest_finite, moving_improvement
from orchestrator.protocol.report import Evaluation
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.criteria import Case, PairedGap, paired_gap
from orchestrator.rules.routing import imbalance


def number(value: float | None) -> JsonValue:
    """A finite number as it is; NaN and infinities by their names, since JSON has none."""
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def curve_evidence(curve: Curve, step: int) -> JsonObject:
    """One run at a step: losses, routing and cost."""
    at = next((e for e in reversed(curve.evaluations) if e.step <= step), None)
    best = best_so_far(curve)
    value = latest_finite(curve, step)
    identity = curve.identity
    return {
        "variant": curve.variant,
        "seed": curve.seed,
        "step": at.step if at else None,
        "tokens": at.tokens if at else None,
        "eval_loss": number(at.eval_loss) if at else None,
        "gate_value": number(value.eval_loss) if value else None,
        "best_eval_so_far": number(best[-1]) if best else None,
        "moving_improvement": number(moving_improvement(curve)),
        "routing": _routing_evidence(at),
        "tokens_per_second": number(at.tokens_per_second) if at else None,
        "flops_per_token": number(identity.flops_per_token) if identity else None,
        "parameters_total": identity.parameters_total if identity else None,
        "parameters_active": identity.parameters_active if identity else None,
        "device": identity.device if identity else None,
    }


def comparison_evidence(case: Case, known: Mapping[int, JsonObject] | None = None) -> JsonObject:
    """What a variant was compared with: the matched losses of each seed, their mean, and the noise.

    `known` is the evidence of the control's runs by their ids, where many variants share it.
    """
    seeds: list[JsonValue] = []
    known = known or {}
    for subject, control in case.pairs:
        row = curve_evidence(subject, case.step)
        if control is not None:
            row["control"] = known.get(control.run_id) or curve_evidence(control, case.step)
        else:
            row["control"] = None
        alone = Case(((subject, control),), case.step, ratio=case.ratio) if len(case.pairs) > 1 else case
        row["gap"] = _gap_evidence(paired_gap(alone, case.step))
        seeds.append(row)
    mean = _gap_evidence(paired_gap(case, case.step))
    return {"step": case.step, "sigma": number(case.sigma), "gap": mean, "seeds": seeds}


def _gap_evidence(gap: PairedGap | Unmatched) -> JsonObject:
    if isinstance(gap, Unmatched):
        return {"comparable": not gap.invalid, "reason": gap.reason}
    return {
        "comparable": True,
        "at": gap.where,
        "eval_loss": number(gap.loss),
        "control_loss": number(gap.control_loss),
        "gap": number(gap.gap),
        "interpolated": gap.interpolated,
    }


def _routing_evidence(evaluation: Evaluation | None) -> JsonObject | None:
    if evaluation is None or evaluation.routing is None:
        return None
    routing = evaluation.routing
    return {
        "num_experts": routing.num_experts,
        "entropy": number(routing.entropy),
        "entropy_worst_layer": number(routing.entropy_worst_layer),
        "imbalance": number(imbalance(routing)),
        "dead_experts": routing.dead_experts,
    }
