"""One experiment from its submission to its end, turn by turn: faults of a plan, checks at each step."""

import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import OperationalError

from orchestrator.domain.errors import AssayError, StaleEpoch
from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.report import Answer, Heartbeat, Report
from orchestrator.services import override
from orchestrator.services.context import Context
from orchestrator.services.ingest import heartbeat, ingest
from orchestrator.services.reconcile import tick
from orchestrator.services.replay import replay
from orchestrator.services.submit import submit
from simulation.faults import Crash, Fault, Plan, Violation, calm_plan, draw_plan
from simulation.invariants import ENDED, Checker
from simulation.outcome import Outcome, compare, outcome_of
from simulation.service import Service, engines_kept, fresh, prepare
from simulation.shapes import SHAPES, Shape, draw_shape
from simulation.workers import Mode, Saved, Worker

TURNS = 400
"""More than an experiment needs with everything that a plan holds."""
DRAIN = 60
TURN_SECONDS = 5.0
IDLE_SECONDS = 10.0
SIGTERM = 15
TERMINAL = {"succeeded", "failed", "cancelled"}

Given = TypeVar("Given")


@dataclass(frozen=True)
class Result:
    """What became of one seed."""

    seed: int
    struck: dict[str, int]
    trace_hash: str
    trace: tuple[str, ...]
    outcome: Outcome | None
    violation: Violation | None
    turns: int
    checks: int


@dataclass
class Late:
    """A report that the network still holds."""

    worker: Worker
    report: Report
    due: int


class Simulation:
    """The service, its machine, its workers, a person and a network, all moved by one plan."""

    def __init__(self, folder: Path, shape: Shape, plan: Plan) -> None:
        self.shape, self.plan = shape, plan
        self.service = Service(folder, shape.slots, plan, self.may_fill_disk)
        self.machine = self.service.machine
        self.checker = Checker(folder / "assay.sqlite3")
        self.workers: dict[str, Worker] = {}
        self.disk: list[Saved] = []
        self.late: list[Late] = []
        self.turns = 0
        self.down = 0
        self.away_until = self.unsure_until = self.resume_at = 0
        self.not_numbers: set[int] = set()
        self.damaged: set[int] = set()
        self.experiment = 0
        self.moved = False

    # --- the whole ----------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """To the end and to the last worker's leaving. Raises `Violation`."""
        with self.service.watched():
            while not self.experiment:
                self.turn(self.submit)
            while self.status() not in TERMINAL:
                if self.turns >= TURNS:
                    raise Violation("every experiment ends", f"it is {self.status()} after {TURNS} turns")
                self.turn(*self.steps())
            self.plan.left = 0
            self.drain()
            self.settle_up()
        return outcome_of(self.checker.connection, self.experiment)

    def drain(self) -> None:
        """Nobody stays behind when the experiment is over."""
        until = self.turns + DRAIN
        while self.left_behind():
            if self.turns >= until:
                raise Violation("every worker leaves", f"{self.left_behind()} is still there")
            self.turn(*self.steps())

    def left_behind(self) -> str:
        """A worker that runs, or an attempt that has not ended."""
        still = [key for key, worker in self.machine.workers.items() if not worker.state.is_over]
        query = "SELECT key FROM attempts WHERE status != ?"
        still += [row[0] for row in self.checker.connection.execute(query, (ENDED,))]
        return still[0] if still else ""

    def settle_up(self) -> None:
        self.checker.check_at_end()
        if self.service.context is None:
            self.service.boot()
        assert self.service.context is not None
        again = replay(self.service.context, self.experiment)
        if again.differences:
            raise Violation("a replay makes every decision again", str(again.differences[0]))

    def status(self) -> str:
        query = "SELECT status FROM experiments WHERE id = ?"
        return str(self.checker.connection.execute(query, (self.experiment,)).fetchone()[0])

    # --- turns --------------------------------------------------------------------------------------

    def turn(self, *steps: Callable[[], None]) -> None:
        """Everything that can happen does so once, in an order of chance; the rows are sound after each."""
        self.turns += 1
        self.moved = False
        self.weather()
        self.revive()
        order = list(steps)
        self.plan.random.shuffle(order)
        for step in order:
            step()
            self.check()
        self.service.clock.wait(TURN_SECONDS if self.moved else IDLE_SECONDS)

    def steps(self) -> Iterator[Callable[[], None]]:
        yield self.tick
        for worker in [*self.workers.values()]:
            if not worker.exited:
                yield lambda worker=worker: self.move(worker)  # type: ignore[misc]
        for late in [late for late in self.late if late.due <= self.turns]:
            self.late.remove(late)
            yield lambda late=late: self.deliver_late(late)  # type: ignore[misc]

    def check(self) -> None:
        self.service.check_errors()
        self.checker.check(self.machine, self.workers)

    def revive(self) -> None:
        """A service that died is started again by whoever looks after it."""
        if self.service.context is not None:
            return
        self.down -= 1
        if self.down <= 0:
            self.service.boot()

    def submit(self) -> None:
        """Asked again under the same key until it is answered, as the command line does."""

        def ask(context: Context) -> int:
            return submit(context, self.shape.spec, key="once")

        self.experiment = self.call(ask) or 0

    def tick(self) -> None:
        self.call(tick)
        self.adopt()

    def adopt(self) -> None:
        """A scripted worker for each that the engine started."""
        for key, started in self.machine.workers.items():
            if key in self.workers:
                continue
            text = (started.spec.directory / "assignment.json").read_text()
            worker = Worker(key, Assignment.model_validate_json(text), self.shape, self.disk)
            self.workers[key] = worker
            self.damage(worker)
            worker.resume()
            worker.heard_at = self.service.clock.monotonic
            self.plan.say(f"{key} resumes at {worker.step}")

    # --- the service --------------------------------------------------------------------------------

    def call(self, what: Callable[[Context], Given]) -> Given | None:
        """Asks the service; None when there is none, or it died, or its disk was full."""
        context = self.service.context
        return None if context is None else self.guarded(lambda: what(context))

    def guarded(self, what: Callable[[], Given]) -> Given | None:
        try:
            return what()
        except Crash:
            self.service.die()
            self.down = self.plan.random.choice((0, 0, 1, 4, 15))
        except OperationalError as error:
            if "disk is full" not in str(error):
                raise
        except AssayError:
            raise
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__} at {where.name}: {str(error).splitlines()[0]}"
            raise Violation("the service never fails by itself", told) from error
        return None

    # --- workers ------------------------------------------------------------------------------------

    def move(self, worker: Worker) -> None:
        """One move of a worker that is up, and what may befall it."""
        state = self.machine.workers[worker.key]
        if worker.mode is not Mode.ZOMBIE and state.state.is_over:
            worker.exited = True
            return
        if worker.mode is Mode.HUNG or self.befalls(worker):
            return
        self.moved = True
        try:
            if SIGTERM in state.signals:
                self.leave(worker, ExitCode.PREEMPTED)
            else:
                self.work(worker)
        except StaleEpoch:
            self.plan.say(f"{worker.key} is stale")
            self.gone(worker, ExitCode.STALE_EPOCH)

    def work(self, worker: Worker) -> None:
        if not worker.spooled:
            worker.begin()
        elif worker.mode is Mode.STALLED:
            pass
        elif worker.step < worker.target:
            worker.train()
        elif worker.told < worker.step:
            worker.tell()
        self.send(worker)
        code = worker.ending(self.service.clock.monotonic)
        if code is not None:
            self.leave(worker, code)

    def send(self, worker: Worker) -> None:
        """What is not acknowledged, or a heartbeat when all is."""
        if worker.acknowledged < len(worker.spooled):
            worker.deliver(self.post, self.in_order)
        else:
            self.beat(worker)

    def in_order(self, reports: list[Report]) -> list[Report]:
        if len(reports) > 1 and self.plan.strikes(Fault.REPORTS_REORDERED):
            self.plan.random.shuffle(reports)
        return reports

    def post(self, worker: Worker, report: Report) -> Answer | None:
        """A report through a network that loses, delays and doubles. Raises `StaleEpoch`."""
        if self.plan.strikes(Fault.REPORT_LOST):
            return None
        if self.plan.strikes(Fault.REPORT_LATE):
            self.late.append(Late(worker, report, self.turns + self.plan.random.randint(1, 12)))
            return None
        if self.plan.strikes(Fault.REPORT_TWICE):
            self.arrive(worker, report)
        answer = self.arrive(worker, report)
        return None if self.plan.strikes(Fault.ANSWER_LOST) else answer

    def arrive(self, worker: Worker, report: Report) -> Answer | None:
        """The report reaches the service, if there is one."""
        answer = self.call(lambda context: ingest(context, worker.attempt, report))
        told = "no answer" if answer is None else f"{answer.acknowledged} {answer.directive.kind}"
        self.plan.say(f"{worker.key} report {report.sequence} at {report.step}: {told}")
        if answer is not None:
            self.checker.promise(worker, report, answer.acknowledged)
            worker.heard_at = self.service.clock.monotonic
            self.check()
        return answer

    def deliver_late(self, late: Late) -> None:
        try:
            self.arrive(late.worker, late.report)
        except StaleEpoch:
            self.plan.say(f"{late.worker.key} report {late.report.sequence} came too late")

    def beat(self, worker: Worker) -> None:
        beat: Heartbeat = worker.beat()
        answer = self.call(lambda context: heartbeat(context, worker.attempt, beat))
        told = "no answer" if answer is None else f"{answer.directive.kind}"
        self.plan.say(f"{worker.key} heartbeat at {worker.step}: {told}")
        if answer is not None:
            worker.heard_at = self.service.clock.monotonic
            worker.hear(answer)

    def leave(self, worker: Worker, code: ExitCode) -> None:
        """Says why it ends, and ends."""
        worker.account(code)
        try:
            worker.deliver(self.post, self.in_order)
        finally:
            self.gone(worker, code)

    def gone(self, worker: Worker, code: int) -> None:
        self.plan.say(f"{worker.key} exits {int(code)}")
        worker.exited = True
        self.machine.exit(worker.key, code)

    # --- what befalls workers -----------------------------------------------------------------------

    def befalls(self, worker: Worker) -> bool:
        """Whether something struck that ends its move."""
        if worker.mode is not Mode.UP or not self.may_break(worker):
            return False
        strikes = self.plan.strikes
        if strikes(Fault.KILLED):
            self.gone(worker, -9)
        elif worker.step < worker.target and strikes(Fault.TORN):
            worker.train(torn=True)
            self.gone(worker, -9)
        elif strikes(Fault.LOST):
            worker.exited = True
            self.machine.lose(worker.key)
        elif strikes(Fault.ZOMBIE):
            worker.mode = Mode.ZOMBIE
            self.machine.lose(worker.key)
        elif strikes(Fault.HUNG):
            worker.mode = Mode.HUNG
        elif strikes(Fault.PREEMPTED):
            self.machine.send(worker.key, SIGTERM)
            return False
        elif worker.step < worker.target and strikes(Fault.STALLED):
            worker.mode = Mode.STALLED
            return False
        else:
            self.poison(worker)
            return False
        return True

    def may_break(self, worker: Worker) -> bool:
        """Whether its run has come further than where it last broke: twice at one step rightly fails it."""
        if not worker.spooled:
            return False
        history = self.checker.steps_of(worker.run)
        now = next((row for row in history if row[0] == worker.attempt), None)
        if now is None or now[1] == ENDED:
            return False
        return all(row[3] < now[3] for row in history if row is not now)

    def may_fill_disk(self, directory: Path) -> bool:
        """Likewise for a start that fails."""
        history = self.checker.steps_of(int(directory.parent.name.removeprefix("run_")))
        return bool(history) and all(row[3] < history[-1][3] for row in history[:-1])

    def poison(self, worker: Worker) -> None:
        """Its losses are no numbers from here on; once for a run, since the policy retries once."""
        fresh = worker.run not in self.not_numbers | self.damaged
        if fresh and worker.step < worker.target and self.plan.strikes(Fault.NAN):
            self.not_numbers.add(worker.run)
            worker.poisoned = True

    def damage(self, worker: Worker) -> None:
        """The newest of several checkpoints, so that there is one before it."""
        good = [saved for saved in worker.candidates() if not saved.damaged]
        several = len({saved.step for saved in good}) > 1 and worker.run not in self.not_numbers
        if several and self.plan.strikes(Fault.DAMAGED):
            self.damaged.add(worker.run)
            for saved in good:
                saved.damaged = saved.step == good[0].step

    # --- what befalls everything --------------------------------------------------------------------

    def weather(self) -> None:
        """Windows open and close; clocks jump; the service or a person is away."""
        self.windows()
        clock, chance, strikes = self.service.clock, self.plan.random, self.plan.strikes
        if strikes(Fault.CLOCK_FORWARD):
            clock.jump(chance.choice((20.0, 300.0, 7200.0)))
        if strikes(Fault.CLOCK_BACK):
            clock.jump(-chance.choice((10.0, 60.0, 300.0)))
        if strikes(Fault.SUSPEND):
            clock.jump(chance.choice((600.0, 36_000.0)))
        if self.service.context is not None and strikes(Fault.SERVICE_DOWN):
            self.service.die()
            self.down = chance.randint(15, 30)
        if self.experiment and not self.resume_at and strikes(Fault.PAUSED):
            self.person(override.pause_experiment)
            self.resume_at = self.turns + chance.randint(2, 15)

    def windows(self) -> None:
        machine, chance = self.machine, self.plan.random
        machine.is_unreachable = self.turns < self.away_until
        if self.turns > self.away_until + 4 and self.plan.strikes(Fault.ENGINE_AWAY):
            self.away_until = self.turns + 2
            machine.is_unreachable = True
        if self.turns >= self.unsure_until:
            machine.hidden = set()
            if machine.workers and self.plan.strikes(Fault.ENGINE_UNSURE):
                self.unsure_until = self.turns + chance.randint(2, 10)
                machine.hidden = set(machine.workers)
        if self.resume_at and self.turns >= self.resume_at and self.person(override.resume_experiment):
            self.resume_at = 0

    def person(self, act: Callable[[Context, int, str, str], None]) -> bool:
        """Whether what a person asked for was done, or came too late to do."""

        def ask(context: Context) -> bool:
            act(context, self.experiment, "user:ada", "")
            return True

        try:
            return self.call(ask) or False
        except AssayError:
            return True


class Laboratory:
    """Runs seeds in one folder of one process; remembers what the undisturbed runs came to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = prepare(folder)
        self.calm: dict[int, Outcome] = {}

    def undisturbed(self, shape: Shape) -> Outcome:
        if shape.number not in self.calm:
            result = self._run(shape, calm_plan(shape.number))
            if result.violation is not None:
                raise result.violation
            assert result.outcome is not None
            self.calm[shape.number] = result.outcome
        return self.calm[shape.number]

    def run(self, seed: int) -> Result:
        """One experiment with the faults of this seed, held against its undisturbed twin."""
        shape = draw_shape(seed % SHAPES)
        calm = self.undisturbed(shape)
        return self._run(shape, draw_plan(seed), calm)

    def _run(self, shape: Shape, plan: Plan, calm: Outcome | None = None) -> Result:
        """An undisturbed run is held against nothing but the invariants."""
        fresh(self.folder, self.template)
        simulation = Simulation(self.folder, shape, plan)
        outcome, violation = None, None
        try:
            outcome = simulation.run()
            if calm is not None:
                compare(calm, outcome)
        except Violation as found:
            violation = found
            plan.say(f"violation: {found}")
        except AssayError as error:
            violation = Violation("a true report is never refused", f"{type(error).__name__}: {error}")
            plan.say(f"violation: {violation}")
        finally:
            simulation.checker.close()
        digest = sha256("\n".join(plan.trace).encode()).hexdigest()
        struck = {fault.value: times for fault, times in plan.struck.items()}
        turns, checks = simulation.turns, simulation.checker.checks
        return Result(plan.seed, struck, digest, tuple(plan.trace), outcome, violation, turns, checks)


@contextmanager
def shared_memory() -> Iterator[Path]:
    """A temporary folder, in memory where the machine has such."""
    shared = Path("/dev/shm")  # noqa: S108 - made by `tempfile`, and gone with the context
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@contextmanager
def laboratory(within: Path | None = None) -> Iterator[Laboratory]:
    """In a folder of its own, `within` one that another process removes or in memory."""
    with engines_kept(), shared_memory() if within is None else nullcontext(within) as outer:
        folder = Path(tempfile.mkdtemp(dir=outer))
        yield Laboratory(folder)
