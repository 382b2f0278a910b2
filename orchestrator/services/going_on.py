"""A run that was let past a gate or a point: it goes on in its worker, or queues for a slot."""

from dataclasses import replace

from orchestrator.domain.lifecycle import RunStatus
from orchestrator.rules.budget import cost_of
from orchestrator.services.gates import Sitting
from orchestrator.services.snapshot import budget_account, budget_works
from orchestrator.store import runs
from orchestrator.store.records import RunRecord


def go_on(sitting: Sitting, run: RunRecord, *, stage: int, target_step: int) -> None:
    """Gives the run its next target; in a worker that is still up, if the budget can pay for the way there.

    One that it cannot pay for now waits as any other run does, and its worker is told to leave.
    """
    is_up = runs.live_attempt_of(sitting.connection, run.id) is not None
    paid = is_up and _is_paid(sitting, run, target_step)
    status = RunStatus.RUNNING if paid else RunStatus.PENDING
    runs.change_run(sitting.connection, run, status=status, stage=stage, target_step=target_step)


def _is_paid(sitting: Sitting, run: RunRecord, target_step: int) -> bool:
    """Whether the budget can, the control's way first: without it the others would be paid for in vain."""
    every = sitting.runs
    works = budget_works(sitting.connection, sitting.experiment, every, sitting.now)
    account = budget_account(sitting.experiment, works)
    if account is None:
        return True
    own = {work.run_id: work for work in works}
    queued = [r for r in every if r.is_control and r.status is RunStatus.PENDING and r.id != run.id]
    costs = [cost_of(own[r.id], works) for r in queued]
    costs.append(cost_of(replace(own[run.id], target_step=target_step), works))
    return all(account.can_pay(cost) for cost in costs)
