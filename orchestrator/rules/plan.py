"""What is to be done now, from rows alone: `plan(snapshot)` returns actions and does nothing itself.

Asked at every tick and after every report that could change the answer, it keeps no state between calls:
what it asked for and did not happen, it asks for again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.domain.lifecycle import ExperimentStatus, RunStatus
from orchestrator.rules.sharing import StartRun, starts
from orchestrator.rules.snapshot import ExperimentView, RunView, Snapshot, StageRow, WaitingView

BROKEN_OFF = frozenset({RunStatus.STOPPED, RunStatus.FAILED, RunStatus.CANCELLED})
"""Ended before the last stage's end."""


@dataclass(frozen=True)
class CloseStage:
    """Every run of the stage has settled: rank, promote, decline."""

    experiment_id: int
    position: int


@dataclass(frozen=True)
class JudgePoint:
    """Every run that has not passed this step yet has come to it: the field is compared there."""

    experiment_id: int
    position: int
    step: int


@dataclass(frozen=True)
class Choose:
    """The sources of a waiting variant have been judged: it starts from the best of them."""

    experiment_id: int
    dependent_id: int


@dataclass(frozen=True)
class Hold:
    """A gate is due and there is no control to judge against: it holds, and says so."""

    experiment_id: int
    position: int


@dataclass(frozen=True)
class EndUnpaid:
    """The budget cannot pay for these runs, and nothing that is live can give it back."""

    experiment_id: int
    run_ids: tuple[int, ...]


@dataclass(frozen=True)
class EndExperiment:
    """Nothing is left to do in it."""

    experiment_id: int
    status: ExperimentStatus
    conclusion: str | None
    """None: the last stage says it."""


Due = CloseStage | JudgePoint | Choose | Hold | EndUnpaid | EndExperiment
"""What is done to the rows of one experiment."""

Action = StartRun | Due


def plan_settling(view: ExperimentView) -> Iterator[Due]:
    """What is due in one experiment beside starts: at most one thing, since each may change the next."""
    stage = view.stage
    if view.status is ExperimentStatus.PAUSED:
        return
    if stage is None:
        yield EndExperiment(view.id, ExperimentStatus.SUCCEEDED, None)
        return
    unpaid = _unpaid(view)
    if unpaid:
        yield EndUnpaid(view.id, unpaid)
        return
    ready = next((waiter for waiter in view.waiting if _is_judged(view, waiter, stage)), None)
    if ready is not None:
        yield Choose(view.id, ready.id)
        return
    yield from _settle_stage(view, stage)


def _settle_stage(view: ExperimentView, stage: StageRow) -> Iterator[Due]:
    last = stage.position == view.stages[-1].position
    live = [run for run in view.runs if run.stage == stage.position and not run.status.is_terminal]
    waits = any(waiter.stage == stage.position for waiter in view.waiting)
    over = not live and not waits and any(_has_been_in(run, stage) for run in view.runs)
    due = _due(live)
    if due is not None and due < stage.steps:
        yield JudgePoint(view.id, stage.position, due)
    elif (over or due == stage.steps) and not waits:
        yield from _close(view, stage, last=last, over=over)
    elif _nobody_is_left(view, stage):
        unpaid = all(run.is_unpaid for run in view.runs if not run.is_control)
        why = "the budget ended every variant" if unpaid else "every variant ended"
        text = f"no_winner: {why} before the end of {stage.name}"
        yield EndExperiment(view.id, ExperimentStatus.SUCCEEDED, text)


def _due(live: Sequence[RunView]) -> int | None:
    """The step at which all wait that have not passed it, or None while one is on its way there."""
    if not live:
        return None
    step = min(run.target_step for run in live)
    there = all(run.status is RunStatus.AT_GATE for run in live if run.target_step == step)
    return step if there else None


def _has_been_in(run: RunView, stage: StageRow) -> bool:
    """Whether the run is one of the stage's, or has gone on from it early."""
    return run.stage == stage.position or run.begins <= stage.position < run.stage


def _close(view: ExperimentView, stage: StageRow, *, last: bool, over: bool) -> Iterator[Due]:
    if not _control_is_gone(view, stage, last=last) or view.has_reference:
        yield CloseStage(view.id, stage.position)
        return
    where = f"the {'end' if last else 'gate'} of {stage.name}"
    finished = any(run.status is RunStatus.SUCCEEDED for run in view.runs)
    if all(run.is_unpaid for run in view.runs if run.is_control):
        text = (
            f"the budget did not bring the control to {where}: there is nothing to judge the others against"
        )
        yield EndExperiment(view.id, ExperimentStatus.FAILED, text)
    elif over and not finished and not _later(view, stage):
        text = f"the control ended before {where}: there is nothing to judge the others against"
        yield EndExperiment(view.id, ExperimentStatus.FAILED, text)
    elif not view.is_held:
        yield Hold(view.id, stage.position)


def _later(view: ExperimentView, stage: StageRow) -> bool:
    """Whether runs of a later stage wait for this one to close."""
    return any(run.stage > stage.position and not run.status.is_terminal for run in view.runs)


def _control_is_gone(view: ExperimentView, stage: StageRow, *, last: bool) -> bool:
    """Whether no control run stands at this gate; in the last stage, whether none came to its end.

    One that went on early has stood at it, whatever becomes of it later. One whose seed an earlier stage
    was the last to train is not in this one.
    """
    controls = [run for run in view.runs if run.is_control and _has_been_in(run, stage)]
    return not any(_stands_at(run, stage, last=last) for run in controls)


def _stands_at(run: RunView, stage: StageRow, *, last: bool) -> bool:
    if run.stage > stage.position:
        return True
    return run.status not in BROKEN_OFF and (last or not run.status.is_terminal)


def _nobody_is_left(view: ExperimentView, stage: StageRow) -> bool:
    """Whether the control would train on for nobody: it goes as far as the furthest variant, no further."""
    others = [run for run in view.runs if not run.is_control]
    waits = any(waiter.stage >= stage.position for waiter in view.waiting)
    return bool(others) and not waits and all(run.status in BROKEN_OFF for run in others)


def _is_judged(view: ExperimentView, waiter: WaitingView, stage: StageRow) -> bool:
    """Whether each run that is waited for has been judged at the waiter's step, or has ended before."""
    open_names = {other.name for other in view.waiting}
    if waiter.stage > stage.position or open_names.intersection((*waiter.sources, *waiter.behind)):
        return False
    return all(_has_come_to(run, waiter.step) for run in view.runs if run.id in waiter.runs)


def _has_come_to(run: RunView, step: int) -> bool:
    """A worker may say that it is at a step before it reports its evaluation there: the target tells."""
    there = run.status is RunStatus.AT_GATE and run.target_step >= step
    return run.status.is_terminal or there or run.target_step > step


def _unpaid(view: ExperimentView) -> tuple[int, ...]:
    """Runs that the budget ends: all that are open once it is spent, else those that it can never pay."""
    if view.account is None:
        return ()
    open_runs = [run for run in view.runs if not run.status.is_terminal]
    if view.account.is_exhausted:
        return tuple(run.id for run in open_runs if run.status is not RunStatus.AT_GATE)
    if any(run.has_worker or run.status in {RunStatus.STARTING, RunStatus.RUNNING} for run in view.runs):
        return ()  # what it was promised may still come back
    stage = view.stage
    pending = [run for run in open_runs if stage and run.stage <= stage.position]
    pending = [run for run in pending if run.status is RunStatus.PENDING]
    payable = [run for run in pending if view.account.can_pay(run.cost)]
    controls = [run for run in pending if run.is_control]
    if not pending or (payable and all(run in payable for run in controls)):
        return ()
    return tuple(run.id for run in pending)


def plan(snapshot: Snapshot) -> list[Action]:
    """Gates first, then starts: a gate may free or need slots. Equal snapshots give equal plans."""
    due: list[Action] = [action for view in snapshot.experiments for action in plan_settling(view)]
    return [*due, *starts(snapshot)]
