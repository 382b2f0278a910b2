"""`assay reference`: files become the document that is posted; what is wrong with them is bad usage."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli_rigs import Assay, CannedService, Request
from cli_samples import AT, page, run

LOG = "".join(
    f"{{'loss': {5 - step / 1000}, 'step': {step}}}\n"
    + (f"{{'eval_loss': {5.1 - step / 1000}, 'step': {step}}}\n" if step % 500 == 0 else "")
    for step in range(100, 1001, 100)
)


def reference(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"ref_{number}",
        "name": "dense",
        "description": "",
        "source": {"kind": "import", "format": "live-log", "files": ["logs/train.log"], "claimed": []},
        "identity": {"tokenizer": "gpt2"},
        "unrecorded": ["evaluation set"],
        "evaluation_count": 2,
        "first_step": 500,
        "last_step": 1000,
        "best_eval_loss": 4.1,
        "last_eval_loss": 4.1,
        "notes": ["session 2 begins at step 600"],
        "content_hash": "ab" * 32,
        "created_at": AT,
        "evaluations": [{"step": 500, "eval_loss": 4.6, "tokens": 1000}, {"step": 1000, "eval_loss": "NaN"}],
        "train_loss": [],
        **changes,
    }


@pytest.fixture
def stored(service: CannedService) -> list[dict[str, Any]]:
    """What was posted."""
    posted: list[dict[str, Any]] = []

    def keep(request: Request) -> tuple[int, Any]:
        posted.append(request.body)
        return 201, reference()

    service.routes["POST /v1/references"] = keep
    return posted


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "my run!.log"
    file.write_text(LOG)
    return file


def state(folder: Path, steps: int, shift: float = 0.0) -> Path:
    """A run folder with the state of a training that came so far."""
    folder.mkdir(parents=True)
    history = [
        {"step": step, key: value + shift}
        for step in range(100, steps + 1, 100)
        for key, value in (("loss", 5.0 - step / 1000), ("eval_loss", 5.1 - step / 1000))
    ]
    text = json.dumps({"global_step": steps, "max_steps": 5000, "log_history": history})
    (folder / "trainer_state.json").write_text(text)
    return folder


def test_a_log_is_read_and_posted(assay: Assay, stored: list[dict[str, Any]], log: Path) -> None:
    said = assay(
        "reference", "import", str(log), "--tokens-per-step", "128", "--evaluation-set", "e1", "--tokenizer",
        "gpt2", "--schedule", "cosine", "--horizon", "1000", "--description", "of last week",
    )  # fmt: skip
    assert said.code == 0, said.err
    (document,) = stored
    assert document["name"] == "my-run"
    assert document["description"] == "of last week"
    assert document["source"] == {"format": "live-log", "files": [str(log)]}
    assert document["identity"] == {
        "evaluation_set": "e1",
        "tokenizer": "gpt2",
        "schedule_family": "cosine",
        "horizon_step": 1000,
        "tokens_per_step": 128,
    }
    assert [(e["step"], e["eval_loss"]) for e in document["evaluations"]] == [(500, 4.6), (1000, 4.1)]
    assert len(document["train_loss"]) == 10


def test_what_was_stored_dropped_and_is_missing_is_said(
    assay: Assay, stored: list[dict[str, Any]], log: Path
) -> None:
    out = assay("reference", "import", str(log), "--name", "dense").out
    assert "dense  ref_1  2 evaluations, steps 500 to 1,000, best eval loss 4.100" in out
    assert "- session 2 begins at step 600" in out
    assert "not recorded: evaluation set" in out
    assert stored[0]["name"] == "dense"
    assert json.loads(assay("reference", "import", str(log), "--json").out) == reference()


def test_a_run_that_it_is_like_may_be_named_as_anywhere(
    assay: Assay, service: CannedService, stored: list[dict[str, Any]], log: Path
) -> None:
    service.routes["GET /v1/experiments/exp_1/runs"] = page(run(4, "base"))
    assert assay("reference", "import", str(log), "--like", "exp_1/base").code == 0
    assert stored[0]["like"] == "run_4"


def test_of_a_folder_the_state_that_came_furthest_is_read(
    assay: Assay, stored: list[dict[str, Any]], tmp_path: Path
) -> None:
    folder = state(tmp_path / "out", 300)
    state(folder / "checkpoint-200", 200)
    newest = state(folder / "checkpoint-1000", 1000)
    state(folder / "checkpoint-tmp", 5000)
    assert assay("reference", "import", str(folder)).code == 0
    (document,) = stored
    assert document["name"] == "out"
    assert document["source"]["files"] == [str(newest / "trainer_state.json")]
    assert document["evaluations"][-1]["step"] == 1000
    assert document["identity"] == {"horizon_step": 5000}
    assert "the schedule's horizon, step 5000, is what the files say" in document["notes"]


def test_folders_of_one_resumed_run_are_one_curve(
    assay: Assay, stored: list[dict[str, Any]], tmp_path: Path
) -> None:
    first, second = state(tmp_path / "a", 300), state(tmp_path / "b", 500, 0.01)
    assert assay("reference", "import", str(second), str(first)).code == 0
    document = stored[0]
    assert [e["step"] for e in document["evaluations"]] == [100, 200, 300, 400, 500]
    assert "3 evaluations and 3 losses of session 1" in document["notes"][0]


def test_a_curve_that_diverged_travels_as_json(assay: Assay, stored: list[dict[str, Any]], log: Path) -> None:
    log.write_text(LOG + "{'loss': nan, 'step': 1100}\n{'eval_loss': inf, 'step': 1500}\n")
    assert assay("reference", "import", str(log)).code == 0
    assert stored[0]["evaluations"][-1]["eval_loss"] == "Infinity"
    assert stored[0]["train_loss"][-1] == [1100, "NaN"]


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (LOG.replace("step", "epoch"), [], "--steps-per-epoch: "),
        (LOG, ["--steps-per-epoch", "0"], "--steps-per-epoch: is 0"),
        (LOG, ["--format", "csv"], "eval_loss: there is no such column"),
        (LOG, ["--horizon", "0"], "--horizon: "),
        (LOG, ["--name", "a b"], "--name: 'a b' is not a name"),
        (LOG + LOG.replace("_loss': 4", "_loss': 6"), [], "holds more than one run"),
        ("nothing of use", [], "its format is not known: say --format huggingface|live-log|csv|jsonl"),
        (LOG, ["--format", "xml"], "--format"),
        (None, [], "there is no such file"),
    ],
)
def test_what_is_wrong_is_bad_usage_and_nothing_is_sent(
    assay: Assay,
    service: CannedService,
    log: Path,
    text: str | None,
    arguments: list[str],
    message: str,
) -> None:
    log.unlink() if text is None else log.write_text(text)
    said = assay("reference", "import", str(log), *arguments)
    assert said.code == 2
    assert message in " ".join(said.err.split())
    assert service.requests == []


def test_a_folder_without_a_state_says_what_it_looked_for(assay: Assay, tmp_path: Path) -> None:
    said = assay("reference", "import", str(tmp_path))
    assert said.code == 2
    assert "trainer_state.json" in said.err


class TestFrom:
    @pytest.mark.parametrize(
        ("arguments", "body"),
        [
            (["run_7"], {"run_id": "run_7"}),
            (["exp_1/wide"], {"run_id": "run_4"}),
            (["exp_3"], {"experiment_id": "exp_3"}),
            (["aux"], {"experiment_id": "exp_2"}),
            (
                ["last", "--variant", "wide", "--seed", "0"],
                {"experiment_id": "exp_2", "variant": "wide", "seed": 0},
            ),
            (["wide", "--name", "best"], {"run_id": "run_4", "name": "best"}),
        ],
    )
    def test_a_run_or_an_experiment_is_named_as_anywhere(
        self, assay: Assay, service: CannedService, stored: list[Any], arguments: list[str], body: Any
    ) -> None:
        service.routes["GET /v1/experiments"] = lambda request: (
            page({"id": "exp_2"}) if request.query.get("name") in (None, "aux") else page()
        )
        for experiment in ("exp_1", "exp_2"):
            service.routes[f"GET /v1/experiments/{experiment}/runs"] = page(run(4, "wide"))
        assert assay("reference", "from", *arguments).code == 0
        assert stored == [{"description": "", **body}]

    def test_a_variant_of_a_run_is_bad_usage(self, assay: Assay, service: CannedService) -> None:
        assert assay("reference", "from", "run_1", "--variant", "wide").code == 2
        assert service.requests == []


def test_the_list_shows_each_on_a_line(assay: Assay, service: CannedService) -> None:
    taken = {"kind": "run", "run_id": "run_3", "variant": "base", "seed": 1}
    service.routes["GET /v1/references"] = page(reference(2, source=taken), reference())
    lines = assay("reference", "ls", "--name", "dense").out.splitlines()
    assert service.requests[0].query["name"] == "dense"
    assert "run_3 (base" in lines[1]
    assert "live-log:" in lines[2]
    assert json.loads(assay("reference", "ls", "--json").out)["items"][1] == reference()
    service.routes["GET /v1/references"] = page()
    assert "assay reference import PATH" in assay("reference", "ls").out


def test_one_is_shown_by_id_or_name_with_its_curve(assay: Assay, service: CannedService) -> None:
    service.routes["GET /v1/references"] = lambda request: (
        page(reference(4)) if request.query["name"] == "dense" else page()
    )
    service.routes["GET /v1/references/ref_4"] = reference(
        4, source=reference()["source"] | {"like": "run_7"}
    )
    out = assay("reference", "show", "dense").out
    assert "tokenizer gpt2" in out
    assert "as run_7 has it" in " ".join(out.split())
    assert out.splitlines()[-1].split() == ["1,000", "–", "NaN", "–"]
    assert assay("reference", "show", "ref_4").out == out
    said = assay("reference", "show", "other")
    assert (said.code, "assay reference ls" in said.err) == (1, True)


@pytest.mark.parametrize("before", [True, False])
def test_the_address_may_stand_before_or_after_the_command(
    assay: Assay, service: CannedService, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    monkeypatch.setenv("ASSAY_URL", "http://127.0.0.1:9")
    service.routes["GET /v1/references"] = page()
    url = ["--url", service.url]
    assert assay(*(url if before else []), "reference", "ls", *([] if before else url)).code == 0
