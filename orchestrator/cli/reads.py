"""The reading commands: ask the service, show the answer."""

from pathlib import Path
from threading import Event

from orchestrator.cli import comparison, preview, protocol_tables, tables
from orchestrator.cli.client import PAGE, Client, Json
from orchestrator.cli.files import read_spec
from orchestrator.cli.output import console, print_plain, put, put_json
from orchestrator.cli.progress import ENDED
from orchestrator.cli.resolve import experiment_id, run_id
from orchestrator.cli.sentences import no_experiment
from orchestrator.cli.story import story
from orchestrator.cli.watch import POLL_SECONDS, follow, look_at

RUN_ENDED = ENDED | {"stopped"}


def page(items: list[Json]) -> Json:
    """A list whose pages have all been read, as the API would say it."""
    return {"items": items, "next_cursor": None}


def plan(client: Client, file: Path, as_json: bool) -> None:
    put(client.post("/v1/plans", read_spec(file)), as_json, preview.plan)


def ls(client: Client, status: str | None, name: str | None, as_json: bool) -> None:
    found = client.items("/v1/experiments", status=status, name=name)
    empty = no_experiment(status, name)
    put(page(found), as_json, lambda shown: tables.experiments(shown["items"], empty))


def status(client: Client, experiment: str, as_json: bool) -> None:
    found = client.get(f"/v1/experiments/{experiment_id(client, experiment)}")
    runs = [] if as_json else client.items(f"/v1/experiments/{found['id']}/runs")
    put(found, as_json, lambda shown: protocol_tables.with_waiting(tables.experiment(shown, runs), shown))


def runs(client: Client, experiment: str, as_json: bool) -> None:
    found = client.items(f"/v1/experiments/{experiment_id(client, experiment)}/runs")
    put(page(found), as_json, lambda shown: tables.run_table(shown["items"]))


def why(client: Client, run: str, every: bool, as_json: bool) -> None:
    id_ = run_id(client, run)
    found = client.get(f"/v1/runs/{id_}")
    decisions = client.items("/v1/decisions", run_id=id_)
    if as_json:
        put_json(page(decisions))
        return
    events = [event for event in _events(client, found["experiment_id"]) if event["run_id"] == id_]
    several = _several_seeds(client, found["experiment_id"])
    console().print(story(found, decisions, events, every=every, several_seeds=several))


def _events(client: Client, experiment: str) -> list[Json]:
    """All that happened. This list goes on from `after`, the id of the last event seen."""
    found: list[Json] = []
    after = 0
    while items := client.get(f"/v1/experiments/{experiment}/events", after=after, limit=PAGE)["items"]:
        found += items
        after = items[-1]["id"]
    return found


def _several_seeds(client: Client, experiment: str) -> bool:
    """As the spec has it: what is listed may be of one seed alone."""
    spec = client.get(f"/v1/experiments/{experiment}")["spec"]
    named = [spec.get("seeds", []), *(stage.get("seeds") or [] for stage in spec.get("stages", []))]
    return len({seed for seeds in named for seed in seeds}) > 1


def replay(client: Client, experiment: str, as_json: bool) -> bool:
    """Whether the log came out exactly."""
    found = client.get(f"/v1/experiments/{experiment_id(client, experiment)}/replay")
    put(found, as_json, protocol_tables.replay)
    return bool(found["exact"])


def decisions(client: Client, experiment: str, kind: str | None, shadow: bool, as_json: bool) -> None:
    id_ = experiment_id(client, experiment)
    found = client.items("/v1/decisions", experiment_id=id_, kind=kind, shadow="true" if shadow else None)
    several = not as_json and _several_seeds(client, id_)
    put(page(found), as_json, lambda shown: tables.decisions(shown["items"], several_seeds=several))


def events(client: Client, experiment: str, as_json: bool) -> None:
    id_ = experiment_id(client, experiment)
    found = _events(client, id_)
    runs = [] if as_json else client.items(f"/v1/experiments/{id_}/runs")
    put(page(found), as_json, lambda shown: tables.events(shown["items"], runs))


def compare(client: Client, experiment: str, axis: str, as_json: bool) -> None:
    id_ = experiment_id(client, experiment)
    put(client.get(f"/v1/experiments/{id_}/compare", axis=axis), as_json, comparison.comparison)


def slots(client: Client, as_json: bool) -> None:
    put(page(client.items("/v1/slots")), as_json, lambda shown: tables.slots(shown["items"]))


def logs(client: Client, run: str, follow_on: bool, as_json: bool) -> None:
    """The whole log; with `follow_on` until the run has ended and nothing more comes."""
    id_, offset = run_id(client, run), 0
    while True:
        may_grow = follow_on and client.get(f"/v1/runs/{id_}")["status"] not in RUN_ENDED
        chunk = client.get(f"/v1/runs/{id_}/logs", offset=offset)
        if chunk["text"]:
            put_json(chunk, lines=True) if as_json else print_plain(chunk["text"], end="")
        elif not may_grow:
            return
        else:
            Event().wait(POLL_SECONDS)
        offset = chunk["next_offset"]


def write_text(file: Path, text: str) -> Path:
    """The file, whole or as it was before."""
    temporary = file.with_name(f"{file.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    return temporary.replace(file)


def watch(client: Client, experiment: str, every: bool, as_json: bool) -> Json:
    """The experiment as it ended."""
    id_ = experiment_id(client, experiment)
    return watch_json(client, id_, every) if as_json else follow(client, id_, console(), every=every)


def watch_json(client: Client, experiment: str, every: bool) -> Json:
    """Each decision on a line as it falls, then the experiment."""
    after: str | None = None
    while True:
        look = look_at(client, experiment, after)
        for decision in look.decisions:
            if every or decision["kind"] != "continue":
                put_json(decision, lines=True)
            after = decision["id"]
        if look.has_ended:
            put_json(look.experiment, lines=True)
            return look.experiment
        Event().wait(POLL_SECONDS)
