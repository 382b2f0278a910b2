"""The parameter-matched verdict: how much quality a much smaller model loses against the control."""

import math
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.rules.criteria import Params


class Bands(Params):
    """Bounds of the parameter-matched verdict, in percent: `[0, excellent)`, `[excellent, good)`, ..."""

    excellent_below: float = 3.0
    good_below: float = 7.0
    borderline_at_most: float = 10.0
    fewer_parameters_from: float = 40.0
    fewer_parameters_to: float = 60.0

    def is_for(self, fewer: float, tolerance: float = 1e-6) -> bool:
        """Whether a model with `fewer` percent of the control's parameters less has a band at all."""
        return self.fewer_parameters_from - tolerance <= fewer <= self.fewer_parameters_to + tolerance


class Band(StrEnum):
    BETTER = "better"
    EXCELLENT = "excellent"
    GOOD = "good"
    BORDERLINE = "borderline"
    WEAK = "weak"


@dataclass(frozen=True)
class BandView:
    """Changes against the control, in percent. `band` is None where the sizes are not the ones it is for."""

    quality_drop: float
    perplexity: float
    perplexity_control: float
    perplexity_change: float
    fewer_parameters: float
    band: Band | None


def quality_drop(loss: float, control_loss: float) -> float:
    """`q = 100 * (loss / loss_control - 1)`, in percent; negative when the loss is lower."""
    return 100 * (loss / control_loss - 1)


def perplexity_change(loss: float, control_loss: float) -> float:
    """`100 * (exp(loss - loss_control) - 1)`, in percent."""
    return 100 * math.expm1(min(loss - control_loss, 700.0))


def perplexity(loss: float) -> float:
    """`exp(loss)`, infinite where that is too large for a float."""
    return math.exp(loss) if loss < 700 else math.inf


def band_of(drop: float, bands: Bands, tolerance: float = 1e-6) -> Band:
    """The band of a quality drop; a value within the tolerance of a bound is at it."""
    if drop < -tolerance:
        return Band.BETTER
    if drop < bands.excellent_below - tolerance:
        return Band.EXCELLENT
    if drop < bands.good_below - tolerance:
        return Band.GOOD
    return Band.BORDERLINE if drop <= bands.borderline_at_most + tolerance else Band.WEAK


def band_view(
    loss: float,
    control_loss: float,
    *,
    parameters: int,
    control_parameters: int,
    bands: Bands,
    tolerance: float = 1e-6,
) -> BandView:
    """The verdict band at equal steps or tokens, from total parameters, with what it is shown with."""
    drop = quality_drop(loss, control_loss)
    fewer = 100 * (1 - parameters / control_parameters)
    return BandView(
        quality_drop=drop,
        perplexity=perplexity(loss),
        perplexity_control=perplexity(control_loss),
        perplexity_change=perplexity_change(loss, control_loss),
        fewer_parameters=fewer,
        band=band_of(drop, bands, tolerance) if bands.is_for(fewer, tolerance) else None,
    )
