"""docs/other-trainers.md is true: its examples, registered and planned as it says, as real workers."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from real_service import Service, wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "other-trainers.md").read_text()


def block(language: str) -> str:
    """The page's block of that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def gpt2(screen: int) -> dict[str, Any]:
    """The plan of the page, for the other kind."""
    stages = [
        {"name": "screen", "steps": screen, "variants": {"slow": {}, "fast": {"lr": 0.004}}},
        {"name": "long", "steps": 2 * screen},
    ]
    changes = {"trainer": "gpt2", "base": {"lr": 0.001}, "eval_every": screen // 4, "stages": stages}
    return {**yaml.safe_load(block("yaml")), **changes}


class OtherService(Service):
    """Its workers are those of the registered kinds."""

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if command[1:2] == ["-m"] and str(self.home) in command[-1] and "assignment" in command[-1]:
                found.append(process)
        return found

    def run_of(self, experiment: str, variant: str) -> dict[str, Any]:
        runs = self.get(f"/v1/experiments/{experiment}/runs")["items"]
        return next(run for run in runs if run["variant"] == variant)

    def attempts_of(self, experiment: str, variant: str) -> list[dict[str, Any]]:
        run = self.run_of(experiment, variant)["id"]
        return sorted(self.get(f"/v1/runs/{run}/attempts")["items"], key=lambda a: a["number"])


@pytest.fixture
def service(tmp_path: Path) -> Iterator[OtherService]:
    config = tmp_path / "assay.toml"
    config.write_text(block("toml").replace("/srv/assay/bin/python", sys.executable))
    service = OtherService(
        tmp_path / "home",
        ASSAY_CONFIG=str(config),
        PYTHONPATH=os.pathsep.join([str(ROOT / "docs" / "examples"), str(ROOT)]),
        ASSAY_SLOTS="2",
        ASSAY_HEARTBEAT_SECONDS="0.5",
    )
    service.start()
    yield service
    service.clean()


def judged(service: OtherService, experiment: str, steps: list[int]) -> dict[str, list[tuple[int, float]]]:
    """The curves, when `fast` was promoted by the rules and both runs went to the end without a hole."""
    assert service.until_ended(experiment, 150)["status"] == "succeeded"
    decisions, losses = service.story(experiment)
    promoted = {(variant, step) for variant, _, step, kind, *_ in decisions if kind == "promote"}
    assert ("fast", steps[len(steps) // 2 - 1]) in promoted
    for curve in losses.values():
        assert [step for step, _ in curve] == steps
        assert curve[-1][1] < curve[0][1]
    return losses


@pytest.mark.timeout(200)
def test_a_hand_written_loop_is_promoted_through_a_gate(service: OtherService) -> None:
    experiment = service.post("/v1/experiments", yaml.safe_load(block("yaml")))["id"]
    judged(service, experiment, list(range(5, 41, 5)))
    (only,) = service.attempts_of(experiment, "fast")
    assert only["exit_code"] == 0
    series = service.get(f"/v1/runs/{only['run_id']}/series", name="train_loss")
    assert [step for step, _ in series["points"]] == list(range(1, 41))


@pytest.mark.timeout(200)
def test_a_trainer_of_hugging_face_goes_on_after_its_worker_was_killed(service: OtherService) -> None:
    experiment = service.post("/v1/experiments", gpt2(80))["id"]
    run = wait_until("step 40", lambda: (r := service.run_of(experiment, "fast"))["step"] >= 40 and r)
    # what is told of a step comes before its checkpoint: by now that of step 20 is whole
    killed = next(w for w in service.workers() if f"/{run['id']}/" in w.cmdline()[-1])
    killed.kill()
    judged(service, experiment, list(range(20, 161, 20)))
    first, second = service.attempts_of(experiment, "fast")
    assert first["reason"] in {"crashed", "lost"}
    assert second["resumed_from_step"] >= 20


def test_a_config_that_the_kinds_check_refuses_is_refused_at_submission(service: OtherService) -> None:
    wrong = yaml.safe_load(block("yaml")) | {"base": {"lr": -1, "batch": 8}}
    answer = httpx.post(f"{service.url}/v1/experiments", json=wrong, timeout=30)
    assert answer.status_code == 422
    assert "batch" in answer.text
    assert "unknown setting" in answer.text
