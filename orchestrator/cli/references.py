"""The commands on references: files become a curve here, and the service stores it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from orchestrator.cli.client import Client, Json
from orchestrator.cli.curve_files import STATE, read_files
from orchestrator.cli.errors import BadUsage, Unknown
from orchestrator.cli.output import put
from orchestrator.cli.reads import page
from orchestrator.cli.resolve import experiment_id, run_id
from orchestrator.cli.sentences import NOTHING, number, when
from orchestrator.cli.tables import table
from orchestrator.domain.errors import Invalid
from orchestrator.domain.logs.read import FORMATS, read_logs
from orchestrator.domain.logs.steps import Choices
from orchestrator.domain.references import as_json, parse_reference

ROWS_SHOWN = 40
WORDS = {
    "evaluation_set": "evaluation set",
    "tokenizer": "tokenizer",
    "schedule_family": "schedule",
    "horizon_step": "horizon",
    "tokens_per_step": "tokens per step",
}

OPTIONS = {
    "identity.evaluation_set": "--evaluation-set",
    "identity.tokenizer": "--tokenizer",
    "identity.schedule_family": "--schedule",
    "identity.horizon_step": "--horizon",
    "identity.tokens_per_step": "--tokens-per-step",
    "name": "--name",
    "description": "--description",
}
"""Fields of the document, and the options that give them."""


@contextmanager
def _as_usage() -> Iterator[None]:
    """What is wrong with a file or an option, as bad usage: a line for each."""
    try:
        yield
    except Invalid as error:
        named = ((OPTIONS.get(each.field, each.field), each.message) for each in error.errors)
        raise BadUsage(*(f"{name}: {message}" for name, message in named)) from None


def choices(steps_per_epoch: float | None, eval_every: int | None, run: str | None) -> Choices:
    """What the person says about the files. Raises `BadUsage` for numbers that cannot be."""
    made = Choices(steps_per_epoch=steps_per_epoch, eval_every=eval_every, run=run)
    with _as_usage():
        made.check()
    return made


def read(
    paths: Sequence[Path],
    choices: Choices,
    format_: str,
    name: str | None,
    identity: Mapping[str, object],
    description: str,
) -> Json:
    """The document that stores the curve in these files. Raises `BadUsage` that says what is wrong where."""
    files = read_files(paths)
    with _as_usage():
        curve = read_logs(files, choices, next((known for known in FORMATS if known == format_), None))
        known = {key: value for key, value in identity.items() if value is not None}
        notes = list(curve.notes)
        if curve.horizon_step is not None and "horizon_step" not in known:
            known["horizon_step"] = curve.horizon_step
            notes.append(f"the schedule's horizon, step {curve.horizon_step}, is what the files say")
        document = parse_reference(
            {
                "name": name or named_after(paths[-1], choices.run),
                "description": description,
                "identity": known,  # type: ignore[dict-item]  # of text and numbers
                "source": {"format": curve.format, "files": [file for file, _ in files]},
                "evaluations": list(curve.evaluations),
                "train_loss": [list(point) for point in curve.train_loss],
                "notes": list(notes),
            }
        )
        return as_json(document)


def named_after(path: Path, run: str | None) -> str:
    """A name from a file or folder: for a state inside a folder, that of the run's folder."""
    whole = path.resolve()
    if whole.name == STATE:
        whole = whole.parent
    if re.fullmatch(r"checkpoint-\d+", whole.name):
        whole = whole.parent
    text = f"{whole.name if whole.is_dir() else whole.stem}-{run}" if run else whole.stem
    text = text if run or not whole.is_dir() else whole.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:63] or "curve"


def store(client: Client, document: Json, like: str | None) -> Json:
    """The reference that the service made of the document, or had already."""
    if like is not None:
        document = {**document, "like": run_id(client, like)}
    return client.post("/v1/references", document)


def take(
    client: Client, source: str, variant: str | None, seed: int | None, name: str | None, description: str
) -> Json:
    """The reference of a run, or of an experiment's variant."""
    shared = {"name": name, "description": description}
    if _is_experiment(client, source):
        wanted = {"experiment_id": experiment_id(client, source), "variant": variant, "seed": seed}
    elif variant is not None or seed is not None:
        raise BadUsage(f"--variant and --seed choose in an experiment, and `{source}` is a run")
    else:
        wanted = {"run_id": run_id(client, source)}
    given = {key: value for key, value in (shared | wanted).items() if value is not None}
    return client.post("/v1/references", given)


def _is_experiment(client: Client, text: str) -> bool:
    """An id, `last`, or the name of an experiment; anything else is a run."""
    if "/" in text or text.startswith("run_"):
        return False
    if text == "last" or re.fullmatch(r"exp_\d+", text):
        return True
    return bool(client.get("/v1/experiments", name=text, limit=1)["items"])


def ls(client: Client, name: str | None, as_json: bool) -> None:
    put(page(client.items("/v1/references", name=name)), as_json, lambda found: listed(found["items"]))


def find(client: Client, text: str) -> Json:
    """The reference that an id or a name means; of several of one name, the newest."""
    if re.fullmatch(r"ref_\d+", text):
        return client.get(f"/v1/references/{text}")
    found = client.get("/v1/references", name=text, limit=1)["items"]
    if not found:
        raise Unknown(f"there is no reference named `{text}`: `assay reference ls` shows those that are")
    return client.get(f"/v1/references/{found[0]['id']}")


def listed(items: Sequence[Json]) -> RenderableType:
    """References on a line each."""
    columns = ("id", "name", "evaluations", "steps", "best loss", "created", "from")
    made = table(*columns, wide="from", right=("evaluations", "steps", "best loss"), wraps=False)
    for item in items:
        made.add_row(
            item["id"],
            Text(item["name"]),
            f"{item['evaluation_count']:,}",
            f"{item['last_step']:,}",
            number(item["best_eval_loss"]),
            when(item["created_at"]),
            Text(_origin(item["source"])),
        )
    return made if items else Text("there is no reference yet: `assay reference import PATH` makes one")


def _origin(source: Json) -> str:
    if source.get("kind") == "run":
        return f"{source['run_id']} ({source['variant']}, seed {source['seed']})"
    files = [_short(Path(file)) for file in source.get("files", [])]
    return f"{source.get('format') or 'import'}: {', '.join(files)}" if files else "import"


def _short(path: Path) -> str:
    """A file by its name; a state by the folder that it lies in, since all have one name."""
    return f"{path.parent.name}/{path.name}" if path.name == STATE else path.name


def stored(item: Json) -> RenderableType:
    """What was stored, what was dropped on the way, and what cannot be compared yet."""
    return Group(_head(item), *_notes(item))


def shown(item: Json) -> RenderableType:
    """One reference with its curve: every evaluation, or evenly spaced ones of a long curve."""
    known = [f"{word} {item['identity'].get(key, NOTHING)}" for key, word in WORDS.items()]
    like = item["source"].get("like")
    about = [
        Text(item["description"]),
        Text(f"from {_origin(item['source'])}, stored {when(item['created_at'])} UTC"),
        Text(", ".join(known) + (f" (as {like} has it, by the importer's word)" if like else "")),
    ]
    lines = [line for line in about if line.plain]
    return Group(_head(item), *lines, *_notes(item), Text(), _curve(item["evaluations"]))


def _head(item: Json) -> Text:
    best = number(item["best_eval_loss"])
    evaluations = f"{item['evaluation_count']:,} evaluation{'s' if item['evaluation_count'] != 1 else ''}"
    span = f"steps {item['first_step']:,} to {item['last_step']:,}, best eval loss {best}"
    return Text.assemble((item["name"], "bold"), f"  {item['id']}  {evaluations}, {span}")


def _notes(item: Json) -> list[Text]:
    notes = [Text(f"- {note}") for note in item["notes"]]
    if item["unrecorded"]:
        missing = ", ".join(item["unrecorded"])
        notes.append(
            Text(
                f"not recorded: {missing}. Comparisons with it are invalid until it is imported with them",
                style="yellow",
            )
        )
    return notes


def _curve(evaluations: Sequence[Json]) -> RenderableType:
    from orchestrator.domain.logs.thin import thin

    columns = ("step", "tokens", "eval loss", "train loss")
    made = table(*columns, right=columns)
    for each in thin(evaluations, ROWS_SHOWN):
        tokens = each.get("tokens")
        made.add_row(
            f"{each['step']:,}",
            NOTHING if tokens is None else f"{tokens:,}",
            number(each["eval_loss"]),
            number(each.get("train_loss")),
        )
    return made
