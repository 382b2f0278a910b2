"""The sentence that an experiment ends with."""

from collections.abc import Sequence
from math import fsum, isfinite

from orchestrator.domain.curves import Curve, evaluation_at


def conclude(finished: Sequence[Curve], step: int) -> str:
    """Who was best at the last step, and by how much the control was beaten or not.

    Losses in nats per token, the mean over the seeds whose loss is finite. The control never wins
    silently: it is named when it leads.
    """
    losses = _mean_losses(finished, step)
    controls = {curve.variant for curve in finished if curve.is_control}
    others = {variant: loss for variant, loss in losses.items() if variant not in controls}
    if not others:
        return "no variant finished the last stage"
    best = min(others, key=lambda variant: (others[variant], variant))
    control = next(iter(controls & losses.keys()), None)
    if control is None:
        return f"{best} finished with eval loss {others[best]:.3f} at step {step}; the control did not finish"
    gap = others[best] - losses[control]
    side = "below" if gap < 0 else "above"
    verdict = "is the winner" if gap < 0 else "is the best variant, and the control stays ahead"
    return (
        f"{best} {verdict}: eval loss {others[best]:.3f} at step {step}, "
        f"{abs(gap):.3f} {side} the control's {losses[control]:.3f}"
    )


def _mean_losses(curves: Sequence[Curve], step: int) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for curve in curves:
        evaluation = evaluation_at(curve, step)
        if evaluation is not None and isfinite(evaluation.eval_loss):
            values.setdefault(curve.variant, []).append(evaluation.eval_loss)
    return {variant: fsum(losses) / len(losses) for variant, losses in values.items()}
