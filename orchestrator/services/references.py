"""References: curves that are not rerun, imported or taken from a run, and compared with like any other."""

import math
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Connection

from orchestrator.domain.curves import Curve
from orchestrator.domain.errors import FieldError, Invalid, Missing
from orchestrator.domain.ids import missing, number_of, spell
from orchestrator.domain.logs.thin import thin
from orchestrator.domain.references import (
    NEEDED,
    FromExperiment,
    FromRun,
    ReferenceDocument,
    as_json,
    full_evaluation,
    full_identity,
    parse_reference,
    reference_hash,
    unrecorded,
    with_tokens,
    with_tokens_per_step,
)
from orchestrator.domain.suggest import did_you_mean
from orchestrator.protocol.wire import JsonObject
from orchestrator.services.context import Context
from orchestrator.services.lookup import need_experiment, need_run
from orchestrator.store import curves as store
from orchestrator.store import runs
from orchestrator.store.histories import load_curves
from orchestrator.store.records import RunRecord, StoredCurveRow

MOST_TRAIN_LOSSES = 5000


def create_reference(context: Context, document: JsonObject) -> tuple[int, bool]:
    """(id, whether it is new): the same content under the same name again is the reference that is there.

    Raises `Invalid` for a wrong field, and `Missing` for a run or experiment that is not there.
    """
    wanted = parse_reference(document)
    with context.database.write() as connection:
        if isinstance(wanted, ReferenceDocument):
            values = _imported(connection, wanted)
        elif isinstance(wanted, FromRun):
            values = _from_run(connection, wanted)
        else:
            values = _from_experiment(connection, wanted)
        known = store.same_curve(connection, values["name"], values["content_hash"])
        if known is not None:
            return known, False
        return store.add_curve(connection, **values, created_at=context.clock()), True


def _imported(connection: Connection, document: ReferenceDocument) -> dict[str, Any]:
    given = as_json(document.identity)
    source: JsonObject = {"kind": "import", **as_json(document.source), "claimed": [*sorted(given)]}
    if document.like is not None:
        model = _like(connection, document.like)
        source["like"] = spell("run", model.id)
        given = {name: (model.identity or {}).get(name) for name in NEEDED} | given
    evaluations = [as_json(evaluation) for evaluation in document.evaluations]
    identity = with_tokens_per_step(given, evaluations)
    return _values(
        name=document.name,
        description=document.description,
        source=source,
        identity=identity,
        evaluations=with_tokens(evaluations, identity.get("tokens_per_step")),
        train_loss=document.train_loss,
        notes=list(document.notes),
    )


def _like(connection: Connection, text: str) -> RunRecord:
    """The run with which, as a person says, the curve shares what a comparison needs."""
    run = need_run(connection, number_of("run", text))
    if run.identity is None:
        problem = FieldError("like", f"{text} has not reported its identity yet: name a run that has trained")
        raise Invalid([problem])
    return run


def _from_run(connection: Connection, wanted: FromRun) -> dict[str, Any]:
    run = need_run(connection, number_of("run", wanted.run_id))
    return _of_run(connection, run, wanted, "run_id", [])


def _from_experiment(connection: Connection, wanted: FromExperiment) -> dict[str, Any]:
    experiment = need_experiment(connection, number_of("exp", wanted.experiment_id))
    every = runs.runs_of(connection, [experiment.id])
    variant = wanted.variant or experiment.control
    of_variant = [run for run in every if run.variant == variant]
    if not of_variant:
        hint = did_you_mean(variant, {run.variant for run in every})
        raise Invalid([FieldError("variant", f"`{variant}` has no run in {wanted.experiment_id}{hint}")])
    seeds = ", ".join(str(run.seed) for run in of_variant)
    chosen = [run for run in of_variant if wanted.seed in (None, run.seed)]
    if not chosen:
        raise Invalid([FieldError("seed", f"`{variant}` has no seed {wanted.seed}: it has {seeds}")])
    notes = (
        [f"seed {chosen[0].seed} of {variant}, which has the seeds {seeds}"] if len(of_variant) > 1 else []
    )
    return _of_run(connection, chosen[0], wanted, "experiment_id", notes)


def _of_run(
    connection: Connection, run: RunRecord, wanted: FromRun | FromExperiment, field: str, notes: list[str]
) -> dict[str, Any]:
    """A run's curve as far as it has come. Raises `Invalid` for one without a finite evaluation."""
    curve = load_curves(connection, [run])[run.id]
    if not any(math.isfinite(evaluation.eval_loss) for evaluation in curve.evaluations):
        text = (
            f"{spell('run', run.id)} ({run.variant}) has no finite evaluation yet: there is nothing to store"
        )
        raise Invalid([FieldError(field, text)])
    if not run.status.is_terminal:
        notes = [*notes, f"the run was {run.status} at step {run.step}: what follows is not in this curve"]
    kept = thin(curve.train_loss, MOST_TRAIN_LOSSES)
    if len(kept) < len(curve.train_loss):
        of = f"of {len(curve.train_loss):,} training losses"
        notes = [*notes, f"{len(kept):,} {of} are kept, evenly spaced"]
    experiment = need_experiment(connection, run.experiment_id)
    return _values(
        name=wanted.name or f"{experiment.name[:40]}-{run.variant}"[:63],
        description=wanted.description,
        source={
            "kind": "run",
            "run_id": spell("run", run.id),
            "experiment_id": spell("exp", run.experiment_id),
            "variant": run.variant,
            "seed": run.seed,
        },
        identity=as_json(curve.identity) if curve.identity is not None else {},
        evaluations=[as_json(evaluation) for evaluation in curve.evaluations],
        train_loss=kept,
        notes=notes,
    )


def _values(**values: Any) -> dict[str, Any]:
    """The columns of a row, with its hash. Training losses that are not finite become strings, as in JSON."""
    train_loss: list[JsonValue] = [[step, _spelled(loss)] for step, loss in values["train_loss"]]
    hashed = reference_hash(
        description=values["description"],
        identity=values["identity"],
        evaluations=values["evaluations"],
        train_loss=train_loss,
    )
    return values | {"train_loss": train_loss, "content_hash": hashed}


def _spelled(loss: float) -> float | str:
    if math.isfinite(loss):
        return loss
    return "NaN" if math.isnan(loss) else "Infinity" if loss > 0 else "-Infinity"


def reference_curve(row: StoredCurveRow) -> Curve:
    """The stored curve as the rules see it: a control that goes by the reference's name.

    Its `run_id` is minus the row's id, which no run has. What nobody recorded is NaN; without all that a
    comparison needs it has no identity, and comparisons with it are invalid and say what is missing.
    """
    known = row.identity or {}
    seed = row.source.get("seed")
    return Curve(
        run_id=-row.id,
        variant=row.name,
        seed=seed if isinstance(seed, int) else 0,
        is_control=True,
        identity=full_identity(known),
        evaluations=tuple(full_evaluation(evaluation) for evaluation in row.evaluations),
        train_loss=tuple((int(step), float(loss)) for step, loss in row.train_loss),
        unrecorded=unrecorded(known),
    )


def find_reference(connection: Connection, text: str) -> StoredCurveRow:
    """The reference that `ref_3` or a name means; of several of one name, the newest.

    Raises `Missing` with the nearest name.
    """
    if text.startswith("ref_"):
        return need_reference(connection, number_of("ref", text))
    found = store.named_curve(connection, text)
    if found is None:
        hint = did_you_mean(text, store.curve_names(connection))
        raise Missing(f"there is no reference `{text[:63]}`{hint}")
    return found


def need_reference(connection: Connection, id_: int) -> StoredCurveRow:
    """Raises `Missing` with the id as the outside spells it."""
    found = store.get_curve(connection, id_)
    if found is None:
        raise missing("ref", id_)
    return found
