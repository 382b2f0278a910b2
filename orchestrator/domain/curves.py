"""A run's curve: its evaluations from step 0 on, over all attempts, and what is derived from them."""

from dataclasses import dataclass

from orchestrator.protocol.report import Evaluation, Identity


@dataclass(frozen=True)
class Curve:
    """One run as the rules see it. Evaluations ascend by step, one a step, superseded ones left out."""

    run_id: int
    variant: str
    seed: int
    is_control: bool
    identity: Identity | None
    evaluations: tuple[Evaluation, ...] = ()
    train_loss: tuple[tuple[int, float], ...] = ()
    """(step, training loss) between evaluations, ascending."""
    restarts: tuple[int, ...] = ()
    """The step from which each attempt after the first went on, where the one before had broken."""
