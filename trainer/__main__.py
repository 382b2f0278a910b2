"""`python -m trainer`: work for the service, or train, evaluate, export and describe without one."""

import argparse
import logging
import os
import sys
from pathlib import Path

from pydantic import ValidationError

from orchestrator.protocol.exit import ExitCode
from orchestrator.protocol.kind import ConfigProblem
from trainer.commands.show import show
from trainer.contract.interrupt import Interrupt
from trainer.problems import WorkerProblem
from trainer.text.cache import default_cache

log = logging.getLogger("trainer")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit code (`orchestrator.protocol.exit`), 2 for bad usage."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        return int(arguments.run(arguments))
    except ConfigProblem as error:
        return _fail(ExitCode.CONFIG_ERROR, str(error))
    except WorkerProblem as error:
        return _fail(error.code, str(error))
    except BrokenPipeError:
        return ExitCode.CRASHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    work = commands.add_parser("work", help="train as a service's assignment says")
    work.add_argument("assignment", type=Path)
    work.set_defaults(run=_work)
    _train_arguments(commands.add_parser("train", help="train without a service; resumes by itself"))
    _evaluate_arguments(commands.add_parser("evaluate", help="the held-out loss of a checkpoint"))
    _export_arguments(commands.add_parser("export", help="a folder that transformers loads"))
    _describe_arguments(commands.add_parser("describe", help="parameters, FLOPs and memory of a config"))
    return parser


def _train_arguments(train: argparse.ArgumentParser) -> None:
    _config_arguments(train)
    train.add_argument("--run-dir", type=Path, required=True, help="spool, exit file and checkpoints go here")
    train.add_argument("--to-step", type=_ordinal, required=True, metavar="N")
    train.add_argument("--horizon", type=_ordinal, metavar="N", help="what schedules are sized to")
    train.add_argument("--eval-every", type=_ordinal, default=500, metavar="N")
    train.add_argument("--seed", type=int, help="0 when left out, or the run's own when it resumes")
    train.add_argument("--threads", type=_ordinal, metavar="N")
    _device_argument(train)
    _common_arguments(train)
    train.set_defaults(run=_train)


def _evaluate_arguments(evaluate: argparse.ArgumentParser) -> None:
    _checkpoint_argument(evaluate)
    evaluate.add_argument("--max-tokens", type=_ordinal, metavar="N", help="predict at most so many tokens")
    _device_argument(evaluate)
    _common_arguments(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _export_arguments(export: argparse.ArgumentParser) -> None:
    _checkpoint_argument(export)
    export.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new, or an earlier export")
    _common_arguments(export)
    export.set_defaults(run=_export)


def _describe_arguments(describe: argparse.ArgumentParser) -> None:
    _config_arguments(describe)
    describe.add_argument("--horizon", type=_ordinal, metavar="N", help="steps that schedules are sized to")
    _json_argument(describe)
    describe.set_defaults(run=_describe)


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="C", help="a JSON file")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=c", help="overrides one setting")


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", type=Path, default=default_cache(), help="tokenised text, shared by runs")
    _json_argument(parser)


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the result as JSON on stdout")


def _device_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda where there is one")


def _checkpoint_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="D", help="a step-... folder, or a run directory"
    )


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
    from trainer.commands.standalone import train

    record, result = train(arguments, Interrupt())
    if record.code not in (ExitCode.FINISHED, ExitCode.PREEMPTED):
        return _fail(ExitCode(record.code), record.message)
    if result:
        show(result, as_json=arguments.json)
    return record.code


def _evaluate(arguments: argparse.Namespace) -> int:
    from trainer.commands.evaluate_checkpoint import evaluate_checkpoint

    a = arguments
    show(evaluate_checkpoint(a.checkpoint, a.cache, a.max_tokens, a.device), as_json=a.json)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from trainer.export.folder import export

    show(export(arguments.checkpoint, arguments.out, arguments.cache), as_json=arguments.json)
    return 0


def _describe(arguments: argparse.Namespace) -> int:
    from trainer.commands.describe import describe
    from trainer.commands.standalone import read_config

    config = read_config(arguments.config, arguments.set)
    show(describe(config, arguments.horizon), as_json=arguments.json)
    return 0


def _fail(code: ExitCode, message: str) -> int:
    sys.stderr.write(f"{code.name.lower().replace('_', ' ')}: {message}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
