"""A result is there: the variant that waited for it gets its config, and its runs begin at step 0."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from orchestrator.domain.curves import Curve, upto
from orchestrator.domain.decisions import DecisionKind, Judgement
from orchestrator.domain.evidence import Verdict
from orchestrator.domain.expand import Variant, override
from orchestrator.domain.hashing import content_hash
from orchestrator.protocol.kind import ConfigFacts, ConfigProblem
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.best import Choice, best_of
from orchestrator.services.entering import add_run, add_variant
from orchestrator.services.gates import Place, Seen, Sitting, open_gate, record_at, see
from orchestrator.services.link import link
from orchestrator.services.lookup import need_run
from orchestrator.services.protocol import Protocol
from orchestrator.store import dependents, experiments, journal
from orchestrator.store.records import DependentRow, RunRecord, VariantRecord


@dataclass(frozen=True)
class Found:
    """A result that a variant waited for: the config to start from, and the words and numbers behind it."""

    source: VariantRecord
    judgement: Judgement
    gate_id: int | None


def choose(sitting: Sitting, dependent_id: int) -> None:
    """Starts a variant from the best of its sources, or drops it when none of them is sound."""
    waiter = next(row for row in _waiting(sitting) if row.id == dependent_id)
    known = _known(sitting)
    sources = [known[name] for name in waiter.sources if name in known]
    step, chosen = sitting.protocol.compared(sources, sitting.runs)
    out = {run.id: _ended_before(sitting.connection, run, step) for run in chosen}
    seen = see(sitting.connection, chosen, out, variant=waiter.name)
    gate = open_gate(sitting, f"choose/{waiter.name}", Place(waiter.stage, step, "choose"), seen)
    choice = choose_again(seen, sitting.protocol, step)
    if choice.best is None:
        absent = [name for name in waiter.sources if name not in known]
        more = f"; not trained: {', '.join(absent)}" if absent and sources else ""
        text = f"{choice.text}{more}" if sources else f"none of {', '.join(absent)} was trained"
        drop(sitting, waiter, text)
        return
    start(sitting, waiter, Found(known[choice.best], origin_judgement(waiter.name, choice), gate))


def _ended_before(connection: Connection, run: RunRecord, step: int) -> bool:
    """Whether the run had ended when an evaluation at `step` would have been judged.

    Its worker may report that evaluation still; whether it does so before the other sources are there is
    a matter of chance, so it never counts.
    """
    if not run.status.is_terminal:
        return False
    made = journal.list_decisions(connection, run_id=run.id, limit=journal.MOST)
    return not any(row.attempt is not None and row.step >= step for row in made)


def _waiting(sitting: Sitting) -> list[DependentRow]:
    every = dependents.dependents_of(sitting.connection, [sitting.experiment.id])
    return [row for row in every if row.status == "waiting"]


def _known(sitting: Sitting) -> dict[str, VariantRecord]:
    found = experiments.get_variants(sitting.connection, sitting.experiment.id)
    return {row.name: row for row in found}


def choose_again(seen: Seen, protocol: Protocol, step: int) -> Choice:
    """What the rules say of a choice, from what it saw; a run that is out had no evaluation at `step`."""
    grouped: dict[str, list[Curve]] = {}
    for entrant in seen.entrants:
        curve = upto(entrant.curve, step - 1) if entrant.out else entrant.curve
        grouped.setdefault(curve.variant, []).append(curve)
    return best_of(grouped, step, protocol.policy)


def origin_judgement(name: str, choice: Choice) -> Judgement:
    """Why a variant starts from the config that it does."""
    text = f"{name} starts from the config of {choice.best}: {choice.text}"
    return Judgement(DecisionKind.CONTINUE, "best_of", Verdict.PASS, text, (), choice.evidence)


def around_judgement(name: str, winner: str, stage: str) -> Judgement:
    """Why a variant stands around the winner that it does."""
    text = f"{name} stands around {winner}, the best that enters {stage}"
    evidence: JsonObject = {"winner": winner, "stage": stage}
    return Judgement(DecisionKind.CONTINUE, "around_winner", Verdict.PASS, text, (), evidence)


def start_around(sitting: Sitting, position: int, winners: Sequence[str], gate_id: int | None) -> None:
    """The variants around the best that enters a stage; without one they are dropped."""
    stage = sitting.protocol.spec.stages[position].name
    for waiter in _waiting(sitting):
        if waiter.kind != "around_winner" or waiter.stage != position:
            continue
        if not winners:
            drop(sitting, waiter, f"no variant was promoted into {stage}")
            continue
        judgement = around_judgement(waiter.name, winners[0], stage)
        start(sitting, waiter, Found(_known(sitting)[winners[0]], judgement, gate_id))


def start(sitting: Sitting, waiter: DependentRow, found: Found) -> None:
    """Makes the variant and its runs, unless its config is refused or another variant has it."""
    facts, said = _facts(sitting, waiter, found.source), found.judgement.text
    if isinstance(facts, str):
        drop(sitting, waiter, facts)
        return
    hash_ = content_hash(facts.config)
    twin = next((row.name for row in _known(sitting).values() if row.config_hash == hash_), None)
    if twin is not None:
        drop(sitting, waiter, f"{said}; that is the config of {twin}, which is not trained again")
        return
    overrides = dict(found.source.overrides) | dict(waiter.overrides)
    variant = Variant(waiter.name, waiter.stage, False, overrides, facts, hash_)
    origin: JsonObject = {"from": found.source.name, "text": said}
    variant_id = add_variant(sitting.connection, sitting.experiment.id, variant, origin)
    dependents.settle_dependent(sitting.connection, waiter.id, "resolved", said, variant_id)
    sitting.say("chosen", said)
    _add_runs(sitting, waiter, variant_id, found)


def _add_runs(sitting: Sitting, waiter: DependentRow, variant_id: int, found: Found) -> None:
    """One for each seed of the stage, each with the decision that it begins with."""
    for seed in sitting.protocol.spec.seeds_of(waiter.stage):
        run_id = add_run(
            sitting.connection,
            sitting.protocol,
            sitting.experiment.id,
            variant_id,
            seed=seed,
            stage=waiter.stage,
            now=sitting.now,
        )
        run, stage = need_run(sitting.connection, run_id), sitting.stages[waiter.stage]
        record_at(sitting, run, stage, 0, found.judgement, "origin", found.gate_id)
        link(sitting, run_id)


def _facts(sitting: Sitting, waiter: DependentRow, source: VariantRecord) -> ConfigFacts | str:
    """What the new config amounts to, or why it cannot be trained."""
    kind = sitting.experiment.trainer
    trainer = sitting.context.trainers.get(kind)
    if trainer is None:
        return f"trainer kind `{kind}` is no longer registered on this service"
    try:
        return trainer.check(override(source.config, waiter.overrides))
    except (ConfigProblem, KeyError) as problem:
        return f"the config of {source.name} with its overrides is refused: {problem}"


def drop(sitting: Sitting, waiter: DependentRow, why: str) -> None:
    """The variant is not trained, and the reason is kept."""
    dependents.settle_dependent(sitting.connection, waiter.id, "dropped", why)
    sitting.say("dropped", f"{waiter.name} is not trained: {why}")
