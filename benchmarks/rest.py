"""The service at rest: memory, processor share, and what the command line costs to import."""

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
from real_service import SPEC, Service

SECONDS = 20.0


def at_rest() -> dict[str, str]:
    """Measured on a service that has finished one experiment: resident memory and share of one core."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder) / "home")
        try:
            service.start()
            stages = [{"name": "only", "steps": 20, "variants": SPEC["stages"][0]["variants"]}]
            experiment = service.post("/v1/experiments", SPEC | {"stages": stages})["id"]
            service.until_ended(experiment)
            assert service.process is not None
            process = psutil.Process(service.process.pid)
            process.cpu_percent()
            threading.Event().wait(SECONDS)
            share = process.cpu_percent()
            memory = process.memory_info().rss / 2**20
            maps = {Path(m.path).name for m in process.memory_maps() if "torch" in m.path}
        finally:
            service.clean()
    return {
        "service at rest, resident memory": f"{memory:.0f} MB (limit 150)",
        "service at rest, share of one core": f"{share:.1f} % (limit 2)",
        "torch in the service process": "yes" if maps else "no",
    }


def command_line_import(runs: int = 7) -> dict[str, str]:
    """Median of `import orchestrator.cli.main` in fresh interpreters, beside an empty interpreter."""
    code = (
        "import time; t = time.perf_counter(); import orchestrator.cli.main; print(time.perf_counter() - t)"
    )
    times = sorted(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(runs)
    )
    return {"import orchestrator.cli.main": f"{times[runs // 2]:.2f} s (limit 0.50)"}
