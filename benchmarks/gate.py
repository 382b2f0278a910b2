"""From the last report of a stage to the promoted run's next step: in the same worker, and in a new one."""

import re
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from real_service import SPEC, Service

LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) INFO (.*)$")
STEPS = 40


def delays() -> dict[str, str]:
    """With three slots every worker waits at the gate and goes on; with one, each is started anew."""
    same, new = _delays("3"), _delays("1")
    return {
        "gate to next step, same worker": f"{max(same):.2f} s at most of {len(same)} (limit 1)",
        "gate to next step, new worker": f"{max(new):.2f} s at most of {len(new)} (limit 8)",
    }


def _delays(slots: str) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "home", ASSAY_SLOTS=slots)
        try:
            service.start()
            stages = [
                {"name": "screen", "steps": STEPS, "variants": SPEC["stages"][0]["variants"]},
                {"name": "long", "steps": 2 * STEPS, "promote": {"best": 1, "eligible": "all"}},
            ]
            experiment = service.post("/v1/experiments", SPEC | {"stages": stages})["id"]
            service.until_ended(experiment)
            closed = service.get(f"/v1/experiments/{experiment}")["stages"][0]["closed_at"]
            runs = service.get(f"/v1/experiments/{experiment}/runs")["items"]
            promoted = [run for run in runs if run["step"] == 2 * STEPS]
            return _after(service, promoted, datetime.fromisoformat(closed), slots)
        finally:
            service.clean()


def _after(service: Service, promoted: list[Any], closed: datetime, slots: str) -> list[float]:
    """Seconds from the gate's decision to the line with which training goes on. One slot: the first alone,
    since the other waits for it."""
    found = []
    for run in promoted:
        for line in _log(service, run["id"]).splitlines():
            match = LINE.match(line)
            if match and re.match(rf"(going on|training) from step {STEPS} to", match[3]):
                at = datetime.strptime(f"{match[1]}.{match[2]}+0000", "%Y-%m-%d %H:%M:%S.%f%z")
                found.append((at - closed).total_seconds())
    return sorted(found)[: 1 if slots == "1" else None]


def _log(service: Service, run: str) -> str:
    """The whole output of a run, over all its attempts."""
    text, offset = "", 0
    while chunk := service.get(f"/v1/runs/{run}/logs", offset=offset)["text"]:
        text, offset = text + chunk, offset + len(chunk.encode())
    return text
