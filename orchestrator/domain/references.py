"""A reference as a document: a curve that is not rerun, and what is known of how it came to be."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, JsonValue, ValidationError, model_validator

from orchestrator.domain.errors import FieldError, Invalid
from orchestrator.domain.hashing import content_hash
from orchestrator.domain.spec_errors import field_error, mistakes
from orchestrator.domain.spec_models import Name
from orchestrator.protocol.report import Evaluation, Identity, Routing
from orchestrator.protocol.wire import Count, JsonObject, Ordinal, WireModel

NEEDED = ("evaluation_set", "tokenizer", "schedule_family", "horizon_step", "tokens_per_step")
"""Of an identity: what a comparison must know. The rest may stay unknown."""

Text = Annotated[str, Field(min_length=1, max_length=200)]


class KnownIdentity(WireModel):
    """What is known of a reference's identity; a field of `Identity` each. Nothing is assumed for others."""

    evaluation_set: Text | None = None
    tokenizer: Text | None = None
    schedule_family: Text | None = None
    horizon_step: Ordinal | None = None
    tokens_per_step: Ordinal | None = None
    parameters_total: Count | None = None
    parameters_active: Count | None = None
    flops_per_token: float | None = None
    device: Text | None = None
    threads: Count | None = None
    versions: dict[str, str] | None = None
    code: dict[str, str] | None = None
    warmup_steps: Count | None = None
    decay_from_step: Count | None = None


class KnownEvaluation(WireModel):
    """What is known of one evaluation; a field of `Evaluation` each."""

    step: Count
    eval_loss: float
    tokens: Count | None = None
    perplexity: float | None = None
    train_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    nan_events: Count | None = None
    tokens_per_second: float | None = None
    wall_seconds: float | None = None
    peak_memory_bytes: Count | None = None
    flops_utilisation: float | None = None
    aux_loss: float | None = None
    aux_loss_pooled: float | None = None
    aux_coef: float | None = None
    routing: Routing | None = None


class Source(WireModel):
    """Where an imported curve comes from."""

    format: Annotated[str, Field(max_length=40)] = ""
    files: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(max_length=100)] = ()


class ReferenceDocument(WireModel):
    """A curve to store. Steps ascend, and at least one eval loss is finite."""

    name: Name
    description: Annotated[str, Field(max_length=2000)] = ""
    identity: KnownIdentity = KnownIdentity()
    like: Annotated[str, Field(max_length=40)] | None = None
    """A run with which the curve shares what a comparison needs, as a person says. `identity` goes first."""
    source: Source = Source()
    evaluations: Annotated[tuple[KnownEvaluation, ...], Field(min_length=1, max_length=50_000)]
    train_loss: Annotated[tuple[tuple[Count, float], ...], Field(max_length=5000)] = ()
    notes: Annotated[tuple[Annotated[str, Field(max_length=2000)], ...], Field(max_length=1000)] = ()

    @model_validator(mode="after")
    def _sound(self) -> Self:
        problems = [*_ascending("evaluations", [e.step for e in self.evaluations])]
        problems += _ascending("train_loss", [step for step, _ in self.train_loss])
        if not any(math.isfinite(e.eval_loss) for e in self.evaluations):
            problems.append(
                FieldError("evaluations", "no eval loss is finite: there is nothing to compare with")
            )
        if self.name.startswith("ref_"):
            problems.append(FieldError("name", "names that begin with `ref_` are ids: choose another"))
        if problems:
            raise Invalid(problems)
        return self


class FromRun(WireModel):
    """A run of this service as a reference, as far as it has come."""

    run_id: str
    name: Name | None = None
    description: Annotated[str, Field(max_length=2000)] = ""


class FromExperiment(WireModel):
    """A run of an experiment: by default the control's, at the first seed."""

    experiment_id: str
    variant: str | None = None
    seed: Count | None = None
    name: Name | None = None
    description: Annotated[str, Field(max_length=2000)] = ""


Wanted = ReferenceDocument | FromRun | FromExperiment


def as_json(model: WireModel) -> JsonObject:
    """A model as JSON has it: what is not known is left out, and what is not finite is a string."""
    document: JsonObject = json.loads(model.model_dump_json(exclude_none=True))
    return document


def parse_reference(document: JsonObject) -> Wanted:
    """What a document asks to store. Raises `Invalid` with every field that is wrong, and how to mend it."""
    model: type[Wanted] = ReferenceDocument
    if "run_id" in document:
        model = FromRun
    elif "experiment_id" in document:
        model = FromExperiment
    models = {
        "": model,
        "identity": KnownIdentity,
        "evaluations": KnownEvaluation,
        "source": Source,
        "routing": Routing,
    }
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise Invalid([field_error(item, models) for item in mistakes(error)]) from None


def _ascending(field: str, steps: list[int]) -> list[FieldError]:
    """Where steps first do not ascend."""
    for index, (before, step) in enumerate(pairwise(steps), 1):
        if step <= before:
            text = f"step {step} follows step {before}: steps ascend, one entry for each"
            return [FieldError(f"{field}[{index}]", text)]
    return []


def unrecorded(identity: Mapping[str, JsonValue]) -> tuple[str, ...]:
    """What of `NEEDED` an identity does not say, in words: `evaluation set`, `horizon step`."""
    return tuple(name.replace("_", " ") for name in NEEDED if identity.get(name) is None)


def with_tokens_per_step(
    identity: dict[str, JsonValue], evaluations: list[JsonObject]
) -> dict[str, JsonValue]:
    """The identity with tokens per step, if it is not known and every evaluation counts the same number."""
    if identity.get("tokens_per_step") is not None:
        return identity
    counted = [(e["tokens"], e["step"]) for e in evaluations if e.get("tokens") and e["step"]]
    shares = {tokens / step for tokens, step in counted if isinstance(tokens, int) and isinstance(step, int)}
    share = shares.pop() if len(shares) == 1 else 0.5
    return identity | {"tokens_per_step": int(share)} if share == int(share) else identity


def with_tokens(evaluations: list[JsonObject], tokens_per_step: JsonValue) -> list[JsonObject]:
    """Evaluations that count tokens: `step * tokens_per_step` where a file has none and that is known."""
    if not isinstance(tokens_per_step, int):
        return evaluations
    return [
        e if e.get("tokens") is not None else e | {"tokens": int(str(e["step"])) * tokens_per_step}
        for e in evaluations
    ]


def full_identity(known: Mapping[str, JsonValue]) -> Identity | None:
    """An identity to compare by, or None where something that a comparison needs is not known.

    What is not needed stands as unknown: no parameters, NaN FLOPs per token, no device.
    """
    if unrecorded(known):
        return None
    given = {name: value for name, value in known.items() if value is not None}
    unknown: JsonObject = {"parameters_total": 0, "parameters_active": 0, "device": ""}
    return Identity.model_validate(unknown | {"flops_per_token": "NaN"} | given)


def full_evaluation(known: Mapping[str, JsonValue]) -> Evaluation:
    """An evaluation for the rules: what is not known is NaN, and tokens 0."""
    given = {name: value for name, value in known.items() if value is not None}
    unknown: JsonObject = dict.fromkeys(
        ("train_loss", "learning_rate", "grad_norm", "tokens_per_second", "wall_seconds"), "NaN"
    )
    return Evaluation.model_validate({"tokens": 0} | unknown | {"perplexity": _perplexity(known)} | given)


def _perplexity(known: Mapping[str, JsonValue]) -> JsonValue:
    loss = float(str(known["eval_loss"]))
    return math.exp(loss) if loss < 700 else "NaN" if math.isnan(loss) else "Infinity"


def reference_hash(
    *, description: str, identity: JsonObject, evaluations: list[JsonObject], train_loss: Sequence[JsonValue]
) -> str:
    """What identifies a stored curve beside its name. Where it came from and when is no part of it."""
    content = {"description": description, "identity": identity}
    return content_hash(content | {"evaluations": evaluations, "train_loss": train_loss})
