"""Hugging Face's `Trainer` as a trainer kind: a callback that drives it through the worker's contract.

    with Attempt.from_arguments() as attempt:
        ...
        attempt.identify(check(attempt.config), evaluation_set=..., tokenizer=...)
        arguments = training_arguments(attempt, learning_rate=1e-3)
        trainer = Trainer(model, arguments, callbacks=[AssayCallback(attempt)], ...)
        trainer.train(resume_from_checkpoint=attempt.resume_folder)

`Trainer` calls back in this order, which all of this rests on: `on_step_end`; then, as `control` asks,
`on_log`, `on_evaluate`, `on_save`; only then does it look whether it should stop.
"""

import re
from time import perf_counter
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from orchestrator.protocol.kind import ConfigProblem
from trainer.attempt import Attempt, Left, Misused

FOLDER = "huggingface"
"""Under the attempt's directory: where `Trainer` writes a checkpoint before it is sealed and moved."""
NAMES = {"loss": "train_loss"}
NO_POINT = re.compile(r"epoch|eval_loss|num_input_tokens_seen|.*(runtime|per_second|preparation_time)")


def training_arguments(attempt: Attempt, **own: Any) -> TrainingArguments:
    """`TrainingArguments` with what the attempt decides, and yours. Raises `ConfigProblem` for both at once.

    The schedule is sized to the horizon, and the callback says when to evaluate and to save.
    """
    decided = _decided(attempt) | {"eval_strategy": "no", "save_strategy": "no"}
    if clash := sorted(own.keys() & decided.keys()):
        raise ConfigProblem([(name, "the attempt decides this: leave it out") for name in clash])
    usual: dict[str, Any] = {
        "logging_steps": min(10, attempt.assignment.eval_every),
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": attempt.assignment.device == "cpu",
    }
    return TrainingArguments(**usual | own | decided)


def _decided(attempt: Attempt) -> dict[str, Any]:
    return {
        "output_dir": str(attempt.directory / FOLDER),
        "max_steps": attempt.horizon,
        "seed": attempt.seed,
        "logging_nan_inf_filter": False,  # it would put the mean of the losses before in place of a NaN
        "save_only_model": False,
        "load_best_model_at_end": False,
        "auto_find_batch_size": False,
    }


class AssayCallback(TrainerCallback):
    """Evaluates, saves, reports, waits at gates and ends the training as the service says."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._free_since = perf_counter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Refuses arguments that do not fit, and waits if the run was resumed at its gate."""
        self._refuse(args)
        if state.global_step != self._attempt.step:
            raise Misused(
                f"Trainer begins at step {state.global_step}, the attempt at {self._attempt.step}: call "
                "trainer.train(resume_from_checkpoint=attempt.resume_folder)"
            )
        self._go_on_or_leave()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._attempt.step_begins(self._free_since)  # fetching the batch is part of the step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Asks for what is due at this step; `on_save`, the last call of a step, does the rest."""
        self._attempt.step_ended()
        ends, due = self._attempt.told_to_end(), self._attempt.evaluation_due
        control.should_log = control.should_log or ends or due
        control.should_evaluate = due
        control.should_save = ends or due
        self._free_since = perf_counter()
        return control

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Points of a training step, and of an evaluation's own metrics; not the summary at the end."""
        if logs and "train_runtime" not in logs:
            self._attempt.log(**_points(logs))

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not self._attempt.evaluation_due or not metrics:
            return  # one that the script asked for itself
        if "eval_loss" not in metrics:
            raise Misused("there is no `eval_loss`: give Trainer one eval_dataset, with labels")
        on_gpu = args.device.type == "cuda"
        memory = {"peak_memory_bytes": torch.cuda.max_memory_allocated(args.device)} if on_gpu else {}
        self._attempt.evaluated(metrics["eval_loss"], **memory)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Seals the checkpoint and comes to the step boundary: reports, obeys, waits at a gate."""
        self._attempt.seal(self._attempt.directory / FOLDER / f"checkpoint-{state.global_step}")
        if not self._attempt.goes_on():
            control.should_training_stop = True
        self._free_since = perf_counter()
        return control

    def _go_on_or_leave(self) -> None:
        if not self._attempt.goes_on():
            raise Left("told to end before the first step")  # Trainer would train one before it looks
        self._free_since = perf_counter()

    def _refuse(self, args: TrainingArguments) -> None:
        """Compares with what the attempt decides. Raises `ConfigProblem`."""
        decided = _decided(self._attempt)
        if args.logging_nan_inf_filter:
            args.logging_nan_inf_filter = decided["logging_nan_inf_filter"]
            self._attempt.note("logging_nan_inf_filter was switched off: it hides losses that are not finite")
        wrong = {name: value for name, value in decided.items() if getattr(args, name) != value}
        problems = [(name, f"must be {value!r}: use training_arguments") for name, value in wrong.items()]
        if args.world_size > 1:
            problems.append(("world_size", "one process per attempt: several would each report"))
        if problems:
            raise ConfigProblem(problems)


def _points(logs: dict[str, Any]) -> dict[str, float]:
    """What is worth a point, under names that the service takes."""
    numbers = {name: value for name, value in logs.items() if isinstance(value, int | float)}
    kept = {name: value for name, value in numbers.items() if not NO_POINT.fullmatch(name)}
    return {re.sub(r"[^A-Za-z0-9_./-]", "_", NAMES.get(name, name)): value for name, value in kept.items()}
