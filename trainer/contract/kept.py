"""`attempt.json`: what `trainer.attempt` keeps in a checkpoint beside the files of the loop."""

import json
from hashlib import sha256
from pathlib import Path

from orchestrator.protocol.assignment import Assignment
from orchestrator.protocol.kind import ConfigProblem
from orchestrator.protocol.report import Identity
from trainer.contract.tally import Tally
from trainer.problems import CheckpointProblem, ConfigMismatch

FILE = "attempt.json"


def check_identity(identity: Identity) -> None:
    """Refuses what would make every run look comparable. Raises `ConfigProblem`."""
    empty = [name for name in ("evaluation_set", "tokenizer") if not getattr(identity, name)]
    problems = [(name, "empty: give what tells it from others, a hash of it") for name in empty]
    if identity.parameters_active > identity.parameters_total:
        problems.append(("parameters_active", "more than `parameters_total`: count what a token touches"))
    if problems:
        raise ConfigProblem(problems)


def write(folder: Path, assignment: Assignment, identity: Identity, tally: Tally) -> None:
    """Puts the run's numbers and what it is beside the loop's own files."""
    state = {"format": 1, "tally": tally.to_json(), "run": _run(assignment, identity)}
    (folder / FILE).write_text(json.dumps(state, indent=2))


def read(folder: Path, assignment: Assignment, identity: Identity) -> Tally:
    """The run's numbers in the verified checkpoint `folder`.

    Raises `CheckpointProblem` when it was not written by `trainer.attempt`, `ConfigMismatch` when it is of
    another run.
    """
    try:
        state = json.loads((folder / FILE).read_text())
        then, tally = state["run"], Tally(**state["tally"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"checkpoint {folder.name} has no {FILE} that can be read ({type(error).__name__})"
        raise CheckpointProblem(problem) from error
    for name, now in _run(assignment, identity).items():
        if then.get(name) != now:
            raise ConfigMismatch(
                f"checkpoint {folder.name} has {name} {then.get(name)!r}, this run has {now!r}: "
                "resume with what it had, or train elsewhere"
            )
    return tally


def _run(assignment: Assignment, identity: Identity) -> dict[str, object]:
    """What must be the same for a curve to go on."""
    return {
        "config_hash": sha256(json.dumps(assignment.config, sort_keys=True).encode()).hexdigest(),
        "tokenizer": identity.tokenizer,
        "evaluation_set": identity.evaluation_set,
        "tokens_per_step": identity.tokens_per_step,
        "seed": assignment.seed,
        "horizon_step": assignment.horizon_step,
    }
