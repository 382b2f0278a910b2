"""The model of a watch: what one look at the service shows, and what changed since the look before. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.cli.client import Json
from orchestrator.cli.sentences import decision_sentence, has_several_seeds, run_name

ENDED = frozenset({"succeeded", "failed", "cancelled"})
UNDER_WAY = frozenset({"starting", "running"})
RUNNING = "running"
"""The one status in which a run has a pace; what is known of it in others is of an earlier attempt."""


@dataclass(frozen=True)
class Look:
    """The experiment and its runs at one moment, and the decisions that are new since the look before."""

    experiment: Json
    runs: list[Json]
    decisions: list[Json]
    at: float
    """Monotonic seconds."""

    @property
    def has_ended(self) -> bool:
        return self.experiment["status"] in ENDED


@dataclass(frozen=True)
class Anchor:
    """Where a run's pace is measured from."""

    stage: str
    step: int
    at: float


@dataclass(frozen=True)
class Watched:
    """All that a watch remembers."""

    look: Look | None = None
    anchors: Mapping[str, Anchor] = field(default_factory=dict)

    def then(self, look: Look) -> "Watched":
        """What is remembered after one more look."""
        return Watched(
            look, {run["id"]: _anchor(self.anchors.get(run["id"]), run, look.at) for run in look.runs}
        )

    def eta(self, run: Json) -> float | None:
        """Seconds to the run's target: by its own tokens per second, else by the steps seen so far."""
        if self.look is None or run["status"] != RUNNING:
            return None
        left = run["target_step"] - run["step"]
        by_tokens = _steps_per_second(run)
        if by_tokens:
            return float(left / by_tokens)
        anchor = self.anchors.get(run["id"])
        if anchor is None or run["step"] <= anchor.step or self.look.at <= anchor.at:
            return None
        return float(left * (self.look.at - anchor.at) / (run["step"] - anchor.step))


def _anchor(known: Anchor | None, run: Json, at: float) -> Anchor:
    moved = known is not None and known.stage == run["stage"] and known.step <= run["step"]
    if known is not None and moved and run["status"] == RUNNING:
        return known
    return Anchor(run["stage"], run["step"], at)


def _steps_per_second(run: Json) -> float | None:
    last, speed = run["last_evaluation"], run["tokens_per_second"]
    if not last or not last["step"] or not last["tokens"] or not isinstance(speed, int | float):
        return None
    return float(speed * last["step"] / last["tokens"])


def changes(before: Look | None, now: Look) -> Iterator[str]:
    """Lines for what is new: stages, then the statuses of runs."""
    yield from _stage_changes(before, now)
    known = {run["id"]: run for run in before.runs} if before else {}
    several = has_several_seeds(now.runs)
    for run in now.runs:
        old = known.get(run["id"])
        if old is None or (old["status"], old["stage"]) != (run["status"], run["stage"]):
            name = run_name(run, several_seeds=several)
            place = f"{run['stage']}, step {run['step']:,}/{run['target_step']:,}"
            yield f"{name} is {run['status'].replace('_', ' ')} ({place})"


def _stage_changes(before: Look | None, now: Look) -> Iterator[str]:
    known = {stage["name"]: stage["status"] for stage in before.experiment["stages"]} if before else {}
    for stage in now.experiment["stages"]:
        if known.get(stage["name"], "waiting") != stage["status"]:
            outcome = f": {stage['conclusion']}" if stage.get("conclusion") else ""
            yield f"stage {stage['name']} is {stage['status']}{outcome}"


def told(now: Look, *, every: bool) -> Iterator[tuple[str, str]]:
    """(kind, sentence) of each new decision; those to go on only when `every` one is wanted."""
    several = has_several_seeds(now.runs)
    for decision in now.decisions:
        if every or decision["kind"] != "continue":
            yield decision["kind"], decision_sentence(decision, several_seeds=several)


def ending(experiment: Json) -> str:
    """How it ended, in one line."""
    return (
        f"{experiment['name']} ({experiment['id']}) {experiment['status']}: {experiment['conclusion'] or '–'}"
    )
