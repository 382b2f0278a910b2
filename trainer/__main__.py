"""`python -m trainer`: work for the service, or train, evaluate and describe without one."""

import argparse
import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.kind import ConfigProblem

log = logging.getLogger("trainer")


class Interrupt:
    """Called, says whether SIGTERM or SIGINT has come."""

    def __init__(self) -> None:
        self._come = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def __call__(self) -> bool:
        return self._come

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._come = True


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code (`orchestrator.protocol.exit`), 2 for bad usage."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        return int(arguments.run(arguments))
    except ConfigProblem as error:
        return _fail(ExitCode.CONFIG_ERROR, str(error))
    except BrokenPipeError:
        return ExitCode.CRASHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    work = commands.add_parser("work", help="train as a service's assignment says")
    work.add_argument("assignment", type=Path)
    work.set_defaults(run=_work)

    train = commands.add_parser("train", help="train without a service; resumes by itself")
    _config_arguments(train)
    train.add_argument("--run-dir", type=Path, required=True, help="spool, exit file and checkpoints go here")
    train.add_argument("--to-step", type=_ordinal, required=True, metavar="N")
    train.add_argument("--horizon", type=_ordinal, metavar="N", help="what schedules are sized to")
    train.add_argument("--eval-every", type=_ordinal, default=500, metavar="N")
    train.add_argument("--seed", type=int, help="0 when left out, or the run's own when it resumes")
    train.add_argument("--threads", type=_ordinal, metavar="N")
    train.add_argument("--device", choices=("cpu", "cuda"))
    _common_arguments(train)
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="the held-out loss of a checkpoint")
    evaluate.add_argument("--checkpoint", type=Path, required=True, metavar="D", help="a step-... folder")
    evaluate.add_argument("--max-tokens", type=_ordinal, metavar="N", help="predict at most so many tokens")
    _common_arguments(evaluate)
    evaluate.set_defaults(run=_evaluate)

    describe = commands.add_parser("describe", help="parameters, FLOPs and memory of a config")
    _config_arguments(describe)
    describe.add_argument("--json", action="store_true")
    describe.set_defaults(run=_describe)
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="C", help="a JSON file")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="overrides one setting")


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", type=Path, default=default_cache(), help="tokenised text, shared by runs")
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def default_cache() -> Path:
    """`ASSAY_CACHE`, or a folder under the user's cache."""
    return Path(os.environ.get("ASSAY_CACHE") or Path.home() / ".cache" / "assay")


def _ordinal(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return value


def _work(arguments: argparse.Namespace) -> int:
    from orchestrator.protocol.assignment import Assignment
    from trainer.ranks import environment_size
    from trainer.worker import work

    interrupted = Interrupt()
    try:
        assignment = Assignment.model_validate_json(arguments.assignment.read_bytes())
    except (OSError, ValidationError) as error:
        return _fail(ExitCode.CONFIG_ERROR, f"the assignment cannot be read: {error}")
    if assignment.processes > 1 and environment_size() == 1:
        _become_team(assignment.processes, arguments.assignment)
    return work(assignment, interrupted).code


def _become_team(processes: int, assignment: Path) -> None:
    """Goes on as torchrun, with the same pid: it starts the processes and ends them together."""
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    os.execv(sys.executable, [sys.executable, *run, "-m", "trainer", "work", str(assignment)])  # noqa: S606


def _train(arguments: argparse.Namespace) -> int:
    from trainer.standalone import make_assignment, result
    from trainer.worker import work

    interrupted = Interrupt()
    assignment = make_assignment(arguments)
    record = work(assignment, interrupted)
    if record.code not in (ExitCode.FINISHED, ExitCode.PREEMPTED):
        return _fail(ExitCode(record.code), record.message)
    _say(result(assignment, record), arguments.json)
    return record.code


def _evaluate(arguments: argparse.Namespace) -> int:
    from trainer.problems import WorkerProblem
    from trainer.standalone import evaluate_checkpoint

    try:
        _say(evaluate_checkpoint(arguments.checkpoint, arguments.cache, arguments.max_tokens), arguments.json)
    except WorkerProblem as error:
        return _fail(error.code, str(error))
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from trainer.standalone import describe, read_config

    _say(describe(read_config(arguments.config, arguments.set)), arguments.json)
    return 0


def _say(result: dict[str, object], as_json: bool) -> None:
    if as_json:
        text = json.dumps(result, indent=2)
    else:
        width = max(map(len, result))
        text = "\n".join(f"{name:<{width}}  {_plain(value)}" for name, value in result.items())
    sys.stdout.write(text + "\n")


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.4f}" if abs(value) < 1e6 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _fail(code: ExitCode, message: str) -> int:
    sys.stderr.write(f"{code.name.lower().replace('_', ' ')}: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
