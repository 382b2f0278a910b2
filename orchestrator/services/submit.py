"""spec -> experiment, stages, variants, runs. All of it is checked before anything is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.errors import Conflict, FieldError, Invalid, Missing
from orchestrator.domain.expand import Expansion, PlannedRun, Variant, expand_runs, expand_variants
from orchestrator.domain.hashing import content_hash
from orchestrator.domain.lifecycle import ExperimentStatus, StageStatus
from orchestrator.domain.spec import parse_spec, spec_hash
from orchestrator.domain.spec_models import ExperimentSpec
from orchestrator.domain.suggest import did_you_mean
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.policies import Policy, policy_hash, resolve_policy
from orchestrator.services.context import Context
from orchestrator.services.entering import add_run, add_variant
from orchestrator.services.gates import sit
from orchestrator.services.link import link
from orchestrator.services.policies import known_policies
from orchestrator.services.protocol import Protocol, make_protocol
from orchestrator.services.references import find_reference
from orchestrator.store import experiments as store
from orchestrator.store import journal
from orchestrator.store.dependents import add_dependent


@dataclass(frozen=True)
class CheckedPlan:
    """A spec that can be run, with everything that follows from it."""

    spec: ExperimentSpec
    protocol: Protocol
    expansion: Expansion
    runs: list[PlannedRun]
    shadow: Policy | None = None
    reference_id: int | None = None

    @property
    def policy(self) -> Policy:
        return self.protocol.policy

    @property
    def variants(self) -> list[Variant]:
        """Those that can start at once."""
        return self.expansion.variants


def check_plan(context: Context, document: JsonObject) -> CheckedPlan:
    """The plan of a spec. Raises `Invalid` with every field that is wrong."""
    return _check(context, parse_spec(document))


def _check(context: Context, spec: ExperimentSpec) -> CheckedPlan:
    trainer = context.trainers.get(spec.trainer)
    if trainer is None:
        hint = did_you_mean(spec.trainer, context.trainers)
        raise Invalid([FieldError("trainer", f"`{spec.trainer}` is not registered on this service{hint}")])
    _check_slots(context, spec)
    known = known_policies(context)
    policy = resolve_policy(spec.policy, known)
    shadow = None if spec.shadow is None else _shadow(spec.shadow, known)
    expansion = expand_variants(spec, trainer.check)
    planned = expand_runs(spec, expansion.variants)
    protocol = make_protocol(spec, policy)
    return CheckedPlan(spec, protocol, expansion, planned, shadow, _reference(context, spec))


def _shadow(source: str | JsonObject, known: Mapping[str, JsonObject]) -> Policy:
    """The second policy; what is wrong with it is named under its own field."""
    try:
        return resolve_policy(source, known)
    except Invalid as invalid:
        places = [(f"shadow{e.field.removeprefix('policy')}", e.message) for e in invalid.errors]
        raise Invalid([FieldError(*place) for place in places]) from None


def _reference(context: Context, spec: ExperimentSpec) -> int | None:
    """The stored curve that the spec names."""
    if spec.reference is None:
        return None
    try:
        with context.database.read() as connection:
            return find_reference(connection, spec.reference).id
    except Missing as missing:
        raise Invalid([FieldError("reference", missing.detail)]) from None


def _check_slots(context: Context, spec: ExperimentSpec) -> None:
    there = len(context.engine.slots())
    if spec.resources.slots > there:
        message = f"asks for {spec.resources.slots} and this machine has {there}: ask for at most {there}"
        raise Invalid([FieldError("resources.slots", message)])


def submit(context: Context, document: JsonObject, key: str | None = None) -> int:
    """The id of the experiment. The same `key` and document again: the same id, and nothing new.

    Raises `Invalid`, and `Conflict` when the key was used for another document.
    """
    spec = parse_spec(document)  # first: what is not a number has no hash
    body_hash = content_hash(document)
    if key is not None and (known := _recall(context, key, body_hash)) is not None:
        return known
    checked = _check(context, spec)
    now = context.clock()
    with context.database.write() as connection:
        if key is not None and (twin := store.recall_key(connection, key)) is not None:
            return _same_body(twin, body_hash)
        experiment_id = _write(connection, checked, now)
        sitting = sit(connection, context, experiment_id)
        for run in sitting.runs:
            link(sitting, run.id)
        if key is not None:
            store.remember_key(
                connection, key=key, body_sha256=body_hash, experiment_id=experiment_id, now=now
            )
    context.wake()
    return experiment_id


def _recall(context: Context, key: str, body_hash: str) -> int | None:
    with context.database.read() as connection:
        known = store.recall_key(connection, key)
    return None if known is None else _same_body(known, body_hash)


def _same_body(known: tuple[str, int], body_hash: str) -> int:
    if known[0] != body_hash:
        raise Conflict("this Idempotency-Key was used for another body: send a new key")
    return known[1]


def _write(connection: Connection, checked: CheckedPlan, now: datetime) -> int:
    spec = checked.spec
    experiment_id = store.add_experiment(
        connection,
        name=spec.name,
        question=spec.question,
        status=ExperimentStatus.RUNNING,
        control=spec.control,
        trainer=spec.trainer,
        policy=checked.policy.model_dump(mode="json"),
        policy_hash=policy_hash(checked.policy),
        spec=spec.model_dump(mode="json"),
        spec_hash=spec_hash(spec),
        created_at=now,
        priority=spec.priority,
        reference_id=checked.reference_id,
        shadow=checked.shadow.model_dump(mode="json") if checked.shadow else None,
    )
    for position, stage in enumerate(spec.stages):
        store.add_stage(
            connection,
            experiment_id=experiment_id,
            position=position,
            name=stage.name,
            steps=stage.steps,
            status=StageStatus.WAITING if position else StageStatus.RUNNING,
        )
    _write_runs(connection, checked, experiment_id, now)
    waiting = checked.expansion.waiting
    more = f" and {len(waiting)} that wait for a result" if waiting else ""
    runs, stages = len(checked.runs), len(spec.stages)
    text = f"accepted: {len(checked.variants)} variants{more}, {runs} runs, {stages} stages"
    for sentence in checked.expansion.left_out:
        journal.add_event(connection, "left_out", sentence, now=now, experiment_id=experiment_id)
    journal.add_event(connection, "accepted", text, now=now, experiment_id=experiment_id)
    return experiment_id


def _write_runs(connection: Connection, checked: CheckedPlan, experiment_id: int, now: datetime) -> None:
    ids = {variant.name: add_variant(connection, experiment_id, variant) for variant in checked.variants}
    for waiter in checked.expansion.waiting:
        add_dependent(
            connection,
            experiment_id=experiment_id,
            name=waiter.name,
            stage=waiter.stage,
            kind=waiter.kind,
            sources=list(waiter.sources),
            overrides=waiter.overrides,
        )
    for run in checked.runs:
        ids_ = {"experiment_id": experiment_id, "variant_id": ids[run.variant]}
        add_run(connection, checked.protocol, **ids_, seed=run.seed, stage=run.stage, now=now)
