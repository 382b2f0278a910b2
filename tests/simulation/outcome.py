"""What an experiment came to, and whether two came to the same."""

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from simulation.faults import Violation

FINAL = ("promote", "decline", "stop")
Key = tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """The end in words and numbers, with nothing in it of ids and times."""

    status: str
    conclusion: str
    stages: tuple[str, ...]
    runs: dict[Key, Key]
    """By variant and seed: status, reason, step, stage."""
    decisions: dict[Key, Key]
    """By variant, seed, stage, step and whether it is final: what was decided, why, in which words."""


def outcome_of(connection: sqlite3.Connection, experiment: int) -> Outcome:
    def rows(query: str) -> list[Any]:
        return connection.execute(query, (experiment,)).fetchall()

    [(status, conclusion)] = rows("SELECT status, conclusion FROM experiments WHERE id = ?")
    stages = rows("SELECT conclusion FROM stages WHERE experiment_id = ? ORDER BY position")
    runs = rows(
        """SELECT variants.name, runs.seed, runs.status, runs.reason, runs.step, runs.stage FROM runs
        JOIN variants ON variants.id = runs.variant_id WHERE runs.experiment_id = ?"""
    )
    decisions = rows(
        """SELECT variants.name, runs.seed, d.stage, d.step, d.kind, d.reason, d.verdict, d.text, d.evidence
        FROM decisions d JOIN runs ON runs.id = d.run_id JOIN variants ON variants.id = runs.variant_id
        WHERE d.experiment_id = ? AND NOT d.shadow AND d.kind NOT IN ('fail', 'fall_back') ORDER BY d.id"""
    )
    return Outcome(
        status,
        conclusion,
        tuple(stage[0] for stage in stages),
        {row[:2]: row[2:] for row in runs},
        {(*row[:4], row[4] in FINAL): (*row[4:8], _numbers(row[8])) for row in decisions},
    )


def _numbers(evidence: str) -> str:
    """Evidence without what tells the way there: a run that was restarted says so in it."""
    return json.dumps(_without(json.loads(evidence)), sort_keys=True)


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner) for key, inner in value.items() if key not in {"restarts", "attempt"}}
    if isinstance(value, list):
        return [_without(inner) for inner in value]
    return value


def compare(calm: Outcome, found: Outcome) -> None:
    """Raises `Violation` where the disturbed one came to anything else than the undisturbed one.

    A run that fell back behind a gate is evaluated once more in its new stage, which adds decisions to go
    on; so of those only the ones that both have must be equal, and of the final ones all.
    """
    promise = "decisions equal those of the undisturbed run"
    for name in ("status", "conclusion", "stages", "runs"):
        one, other = getattr(calm, name), getattr(found, name)
        if one != other:
            raise Violation(promise, f"{name}: {_difference(one, other)}")
    for key in sorted(calm.decisions.keys() | found.decisions.keys(), key=repr):
        one, other = calm.decisions.get(key), found.decisions.get(key)
        extra = one is None and not key[-1]
        if one != other and not extra:
            raise Violation(promise, f"{key}: {one} became {other}")


def _difference(one: Any, other: Any) -> str:
    if isinstance(one, dict):
        keys = [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]
        key = min(keys, key=repr)
        return f"{key}: {one.get(key)} became {other.get(key)}"
    return f"{one!r} became {other!r}"
