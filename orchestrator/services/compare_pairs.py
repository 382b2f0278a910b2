"""Runs beside the control's run of the same seed, and why a pair cannot be compared where it cannot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.domain.curves import Curve, Match, Unmatched, match
from orchestrator.protocol.kind import ConfigFacts
from orchestrator.rules.plan import BROKEN_OFF
from orchestrator.store.records import RunRecord


@dataclass(frozen=True)
class Pair:
    """One run and the control's at its seed; the control is beside itself.

    Where a reference stands in for the control, its curve is there and no run: nothing else is known of it.
    """

    run: RunRecord
    curve: Curve
    facts: ConfigFacts
    control: RunRecord | None
    control_curve: Curve | None
    control_facts: ConfigFacts | None

    @property
    def same_hardware(self) -> bool:
        """Whether speed and memory of the two say something about the configs."""
        mine = self.curve.identity
        theirs = self.control_curve.identity if self.control_curve else None
        if mine is None or theirs is None:
            return False
        return (mine.device, mine.threads) == (theirs.device, theirs.threads)


def pair_up(
    every: Sequence[RunRecord],
    curves: Mapping[int, Curve],
    facts: Mapping[int, ConfigFacts],
    reference: Curve | None = None,
) -> list[Pair]:
    """Each run with the control's run of its seed, in the order of the runs.

    As at a gate, the reference stands in once every run of the control has broken off.
    """
    controls = {run.seed: run for run in every if run.is_control}
    gone = all(control.status in BROKEN_OFF for control in controls.values())
    pairs = []
    for run in every:
        if reference is not None and gone and not run.is_control:
            stand_in = replace(reference, seed=run.seed)
            pairs.append(Pair(run, curves[run.id], facts[run.variant_id], None, stand_in, None))
            continue
        control = controls.get(run.seed)
        pairs.append(
            Pair(
                run=run,
                curve=curves[run.id],
                facts=facts[run.variant_id],
                control=control,
                control_curve=None if control is None else curves[control.id],
                control_facts=None if control is None else facts[control.variant_id],
            )
        )
    return pairs


def matched_to(pair: Pair, step: int, ratio: float) -> Match | Unmatched:
    """Both losses at the run's evaluation at `step`, or why there are none: not sound, or not yet."""
    if pair.control_curve is None:
        return Unmatched(f"the control has no run at seed {pair.run.seed}", invalid=True)
    found = match(pair.curve, pair.control_curve, step, ratio)
    if isinstance(found, Match) or found.invalid:
        return found
    own = next((e.eval_loss for e in pair.curve.evaluations if e.step == step), None)
    if own is not None and not math.isfinite(own):
        return Unmatched(f"{found.reason}: its loss is {own}", invalid=True)
    if pair.control is None or not pair.control.status.is_terminal:
        return found
    return Unmatched(f"{_end_of(pair.control)}, and {found.reason}", invalid=True)


def _end_of(control: RunRecord) -> str:
    """`the control failed at step 40 (out of memory)`."""
    why = f" ({control.reason.replace('_', ' ')})" if control.reason else ""
    seed = f" of seed {control.seed}" if control.seed else ""
    return f"the control{seed} {control.status} at step {control.step}{why}"
