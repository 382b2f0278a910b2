"""A replay as it is read: how much of a log the rules reproduce, and where they do not."""

from pydantic import JsonValue

from orchestrator.services.views import View


class Difference(View):
    """One field of a decision that comes out otherwise today."""

    decision_id: str
    variant: str
    stage: str
    step: int
    field: str
    recorded: JsonValue
    recomputed: JsonValue


class NotReplayed(View):
    """A decision that no rule made from curves, and why it is not judged again."""

    decision_id: str
    why: str


class ReplayView(View):
    experiment_id: str
    decisions: int
    reproduced: int
    exact: bool
    """Every decision that keeps its inputs is made again, word for word and number for number.

    False where there is none: then nothing was replayed, and `not_replayed` says why.
    """
    differences: list[Difference]
    not_replayed: list[NotReplayed]
