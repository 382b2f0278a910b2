"""The history checker: pure functions over what was witnessed and what the database holds.

What is promised, precisely:
- A report that was answered with 200 is in the database, with each of its values.
- An evaluation in the database was told by that attempt, with that value.
- Of one run, no worker begins a step after a newer attempt has begun its first. One exception: a worker that
  was stopped by a signal meanwhile. Once it is woken it may train on until it is answered 409, or killed,
  and then at most the one step that it was about to begin; and nothing that it says after it was woken is in
  the database.
- The curve of a run has every evaluation as in the calm run, and every train loss up to its last step.
- Decisions, statuses and conclusions are those of the calm run.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from chaos.history import History, Witnessed, Woken
from chaos.rows import AttemptRow, Outcome, Rows

GRACE = 1.0
"""Seconds that two transactions may seem to overlap: each reads the clock before it waits for the writer."""


def violations(
    history: History, rows: Rows, found: Mapping[str, Outcome], calm: Mapping[str, Outcome]
) -> list[str]:
    """Everything that is wrong, in words; empty when nothing is."""
    return [
        *lost_reports(history, rows),
        *invented_values(history, rows),
        *trained_twice(history),
        *zombies_counted(history, rows),
        *started_twice(history, rows),
        *slots_held_twice(rows.attempts),
        *holes(rows),
        *other_outcomes(found, calm),
        *other_experiments(rows.experiments, list(calm)),
    ]


def lost_reports(history: History, rows: Rows) -> Iterator[str]:
    """Acknowledged reports that are not in the database, whole or in part."""
    evaluations = {(a, step): value for of in rows.evaluations.values() for a, step, value, _ in of}
    points = {(a, step): value for of in rows.points.values() for a, step, value, _ in of}
    for worker in history.workers:
        for sequence in sorted(worker.acknowledged):
            name = f"report {sequence} of attempt {worker.attempt}"
            if (worker.attempt, sequence) not in rows.reports:
                yield f"lost: {name} was acknowledged and is not in the database"
            told = worker.told.get(sequence)
            if told is None:
                continue
            for what, values, stored in (
                ("evaluation", told.evaluations, evaluations),
                ("train loss", told.points, points),
            ):
                wrong = [
                    step for step, value in values.items() if stored.get((worker.attempt, step)) != value
                ]
                if wrong:
                    yield f"lost: {name} was acknowledged; its {what} of steps {wrong} is not as it was told"


def invented_values(history: History, rows: Rows) -> Iterator[str]:
    """Evaluations and train losses in the database that their attempt never told."""
    evaluations: set[tuple[int, int, float]] = set()
    points: set[tuple[int, int, float]] = set()
    for worker in history.workers:
        for told in worker.told.values():
            evaluations.update((worker.attempt, *item) for item in told.evaluations.items())
            points.update((worker.attempt, *item) for item in told.points.items())
    for what, stored, known in (
        ("evaluation", rows.evaluations, evaluations),
        ("train loss", rows.points, points),
    ):
        for run, values in stored.items():
            for attempt, step, value, _ in values:
                if (attempt, step, value) not in known:
                    where = f"run {run} has {what} {value} at step {step}"
                    yield f"invented: {where}, which attempt {attempt} never told"


def trained_twice(history: History) -> Iterator[str]:
    """Steps that a worker began although a newer attempt of its run was training."""
    for workers in _by_run(history).values():
        for index, worker in enumerate(workers):
            firsts = [newer.steps[0].began for newer in workers[index + 1 :] if newer.steps]
            if firsts:
                yield from _too_late(worker, min(firsts), _pauses_of(history, worker))


def _too_late(worker: Witnessed, newer_began: float, pauses: Sequence[Woken]) -> Iterator[str]:
    name = f"attempt {worker.attempt} of run {worker.run}"
    late = [step for step in worker.steps if step.began > newer_began]
    under_way = [s for s in worker.steps if s.began <= newer_began and (s.ended or s.began) > newer_began]
    was_stopped = [pause for pause in pauses if pause.stopped <= newer_began]
    if (late or under_way) and not any(pause.woken >= newer_began for pause in was_stopped):
        steps = [step.number for step in (*under_way, *late)]
        yield f"twice at once: {name}, never stopped, trained steps {steps} after a newer attempt had begun"
        return
    if late and worker.stale_at is not None:
        refused = worker.stale_at
        after = [step.number for step in late if step.began > refused]
        if len(after) > 1:
            yield f"twice at once: {name} began steps {after} after it was answered that its epoch is stale"


def zombies_counted(history: History, rows: Rows) -> Iterator[str]:
    """Zombies that were not refused, and what they said after they were woken and is in the database."""
    for pause in history.pauses:
        workers = [worker for worker in history.workers if worker.pid == pause.pid]
        if not pause.zombie or not workers:
            continue
        worker = workers[0]
        if worker.stale_at is None and _did_anything(worker, pause.woken):
            yield f"zombie: attempt {worker.attempt} was woken after its run went on, and never refused"
        said = [sequence for sequence, told in worker.told.items() if told.at >= pause.woken]
        counted = [sequence for sequence in said if (worker.attempt, sequence) in rows.reports]
        if counted:
            yield f"zombie: reports {counted} of attempt {worker.attempt}, told once it was woken, count"


def _did_anything(worker: Witnessed, since: float) -> bool:
    """It trained or spoke. One that was stopped on its way out, with all said, has nothing to be refused."""
    return any(step.began >= since for step in worker.steps) or any(
        told.at >= since for told in worker.told.values()
    )


def started_twice(history: History, rows: Rows) -> Iterator[str]:
    """Attempts with two workers, epochs that do not grow, attempts that are still live."""
    for attempt, times in Counter(worker.attempt for worker in history.workers).items():
        if times > 1:
            yield f"started twice: attempt {attempt} had {times} workers"
    by_run = defaultdict(list)
    for row in rows.attempts:
        by_run[row.run].append(row)
        if row.status != "ended":
            yield f"left open: attempt {row.id} of run {row.run} is {row.status} at the end"
    for run, attempts in by_run.items():
        ordered = sorted(attempts, key=lambda row: row.number)
        for one, next_ in pairwise(ordered):
            if next_.epoch <= one.epoch or next_.number != one.number + 1:
                numbers = f"{one.number} and {next_.number}"
                yield f"started twice: attempts {numbers} of run {run} are not in order"
            if one.ended_at is None or (one.ended_at - next_.created_at).total_seconds() > GRACE:
                yield f"started twice: attempt {next_.number} of run {run} began before {one.number} ended"


def slots_held_twice(attempts: Sequence[AttemptRow]) -> Iterator[str]:
    """Slots that two attempts held at once."""
    holders = defaultdict(list)
    for row in attempts:
        for slot in row.slots:
            holders[slot].append(row)
    for slot, rows in holders.items():
        ordered = sorted(rows, key=lambda row: (row.created_at, row.id))
        for index, one in enumerate(ordered):
            for other in ordered[index + 1 :]:
                if one.ended_at is None or (one.ended_at - other.created_at).total_seconds() > GRACE:
                    yield f"slot {slot}: attempts {one.id} and {other.id} held it at once"


def holes(rows: Rows) -> Iterator[str]:
    """Steps of a curve without a train loss."""
    for run, last in rows.last_step.items():
        counted = Counter(step for _, step, _, superseded in rows.points.get(run, []) if not superseded)
        missing = [step for step in range(1, last + 1) if not counted[step]]
        if missing:
            yield f"hole: run {run} has no train loss at steps {missing}, of {last}"


def other_outcomes(found: Mapping[str, Outcome], calm: Mapping[str, Outcome]) -> Iterator[str]:
    """What differs from the calm run: ends, decisions, curves."""
    for name, expected in calm.items():
        have = found.get(name)
        if have is None:
            yield f"outcome: {name} is not there"
            continue
        for what in ("status", "conclusion", "runs"):
            one, other = getattr(have, what), getattr(expected, what)
            if one != other:
                yield f"outcome: {name} has {what} {one!r}, undisturbed {other!r}"
        more = Counter(have.decisions)
        more.subtract(Counter(expected.decisions))
        for decision, count in sorted(more.items()):
            if count:
                word = "too often" if count > 0 else "missing"
                yield f"decision: {name}: {word}: {decision}"
        for variant, curve in expected.curves.items():
            if have.curves.get(variant) != curve:
                yield f"curve: {name}/{variant}: {_difference(have.curves.get(variant, []), curve)}"


def other_experiments(found: Sequence[str], submitted: Sequence[str]) -> Iterator[str]:
    """Experiments that were lost, or made twice."""
    more = Counter(found)
    more.subtract(Counter(submitted))
    for name, count in more.items():
        if count:
            yield f"submission: {name} is there {found.count(name)} times"


def _difference(have: list[tuple[int, float]], expected: list[tuple[int, float]]) -> str:
    missing = sorted({step for step, _ in expected} - {step for step, _ in have})
    extra = sorted({step for step, _ in have} - {step for step, _ in expected})
    other = sorted(step for step, value in have if step not in extra and (step, value) not in expected)
    return f"evaluations missing at {missing}, too many at {extra}, another value at {other}"


def _by_run(history: History) -> dict[int, list[Witnessed]]:
    found = defaultdict(list)
    for worker in sorted(history.workers, key=lambda worker: worker.number):
        found[worker.run].append(worker)
    return found


def _pauses_of(history: History, worker: Witnessed) -> list[Woken]:
    return [pause for pause in history.pauses if pause.pid == worker.pid]
