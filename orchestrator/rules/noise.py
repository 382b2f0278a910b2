"""Seed noise where it is not measured: what earlier sweeps say of it, by step."""

from collections.abc import Sequence

from pydantic import Field

from orchestrator.rules.criteria import Params


class NoiseBand(Params):
    """The standard deviation over seeds of the eval loss, in nats, up to a step or a share of the horizon.

    With neither bound it holds to the end.
    """

    sigma: float = Field(ge=0)
    up_to_step: int | None = Field(default=None, ge=1)
    up_to_share: float | None = Field(default=None, gt=0, le=1)
    """Of the horizon. Where the horizon is not known, the band holds to the end."""

    def covers(self, step: int, horizon: int | None) -> bool:
        """Whether the band holds at `step`, its bounds included."""
        within_step = self.up_to_step is None or step <= self.up_to_step
        within_share = self.up_to_share is None or horizon is None or step <= self.up_to_share * horizon
        return within_step and within_share


def noise_at(bands: Sequence[NoiseBand], step: int, horizon: int | None) -> float | None:
    """Nats, of the first band that covers the step; None where none does."""
    return next((band.sigma for band in bands if band.covers(step, horizon)), None)
