"""One attempt, from its assignment to its exit record. Torch is imported only once the config is valid."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.exit import ExitCode, ExitRecord
from orchestrator.protocol.report import Identity, Phase
from trainer.config import Config
from trainer.contract.ending import account, write_exit
from trainer.contract.interrupt import leaving_at_once
from trainer.contract.reporter import Reporter
from trainer.facts import flops_per_token, parameters_active, parameters_total, validate
from trainer.follower import follow, of_a_follower
from trainer.provenance import code_of, versions
from trainer.ranks import environment_rank, environment_size, local_rank
from trainer.schedules import decay_from_step, warmup_steps

if TYPE_CHECKING:
    from trainer.training import Training

log = logging.getLogger(__name__)


def work(assignment: Assignment, interrupted: Callable[[], bool]) -> ExitRecord:
    """Trains as assigned. Whatever happens, `exit.json` says it, and the service is told if it listens.

    Under torchrun, the process of rank 0 does this and the others follow it.
    """
    Path(assignment.directory).mkdir(parents=True, exist_ok=True)
    if environment_rank() > 0:
        return follow(assignment, _prepared(assignment, lambda: False))
    reporter = Reporter(assignment)
    try:
        record = _train(assignment, reporter, interrupted)
    except BaseException as error:
        record = account(error, reporter.step)
        if record.code == ExitCode.CRASHED and environment_size() > 1:
            record = of_a_follower(assignment) or record
    write_exit(Path(assignment.directory), record)
    try:
        reporter.close(record)
    except OSError:
        log.exception("the last report could not be spooled")
    return record


def _train(assignment: Assignment, reporter: Reporter, interrupted: Callable[[], bool]) -> ExitRecord:
    with _prepared(assignment, interrupted) as training:
        from trainer.loop import Loop
        from trainer.resume import resume
        from trainer.team import Order

        resumed = resume(assignment, training)
        progress = resumed.progress
        training.team.say(Order.BEGIN, progress.step)
        reporter.emit(
            Phase.STARTING,
            progress.step,
            resumed_from_step=progress.step,
            identity=_identity(training.config, training),
            passed_over=tuple(resumed.passed_over),
            notes=tuple(resumed.notes),
        )
        if progress.step < assignment.target_step:
            log.info(
                "training from step %d to %d on %s", progress.step, assignment.target_step, training.device
            )
        record = Loop(assignment, training, progress, reporter, interrupted).run()
        with suppress(RuntimeError):  # the run has ended well, whether or not the others still listen
            training.team.say(Order.LEAVE)
        return record


@contextmanager
def _prepared(assignment: Assignment, interrupted: Callable[[], bool]) -> Iterator["Training"]:
    """The training before its first step, in its team."""
    config = validate(assignment.config, with_source=False)

    from trainer.data import open_data

    with leaving_at_once(interrupted):
        data = open_data(config.data, config.sequence_length, Path(assignment.cache_directory))

    import torch

    from trainer.memory import keep_freed_pages
    from trainer.team import join, leave
    from trainer.training import Training

    device = assignment.device or ("cuda" if torch.cuda.is_available() else "cpu")
    _set_up_torch(config, assignment.threads, cuda=device == "cuda")
    if device == "cpu":
        keep_freed_pages()
    if device == "cuda":
        device = f"cuda:{local_rank()}"
        torch.cuda.set_device(device)
    team = join(device)
    try:
        yield Training(
            config,
            data,
            seed=assignment.seed,
            horizon=assignment.horizon_step,
            device=device,
            team=team,
            memory_factor=assignment.memory_factor,
        )
    finally:
        leave(team)


def _set_up_torch(config: Config, threads: int | None, *, cuda: bool) -> None:
    import torch

    if (count := config.train.threads or threads) is not None:
        torch.set_num_threads(count)
    # On CPU every operation used here is deterministic, and the call below imports the compiler: seconds.
    if config.train.deterministic and cuda:
        # cuBLAS reads it when it starts; without it its products are not deterministic.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _identity(config: Config, training: "Training") -> Identity:
    import torch

    return Identity(
        evaluation_set=training.data.evaluation_set,
        tokenizer=training.data.tokenizer,
        schedule_family=config.schedule.family,
        horizon_step=training.horizon,
        tokens_per_step=config.tokens_per_step,
        parameters_total=parameters_total(config),
        parameters_active=parameters_active(config),
        flops_per_token=flops_per_token(config),
        device=f"cuda: {torch.cuda.get_device_name()}" if training.device.type == "cuda" else "cpu",
        threads=torch.get_num_threads(),
        versions=versions(torch.version.cuda),
        code=code_of(),
        warmup_steps=warmup_steps(config.schedule, training.horizon),
        decay_from_step=decay_from_step(config.schedule, training.horizon),
    )
