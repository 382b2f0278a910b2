"""Syne Tune's ASHA on the curves of standard input: seconds of one decision on each run at a rung, as JSON.

Run by the Python that has Syne Tune; it shares nothing with this project.
"""

import importlib
import json
import sys
import time
from typing import Any

RUNG = 81


def main() -> None:
    asha: Any = importlib.import_module("syne_tune.optimizer.schedulers.asha")
    backend: Any = importlib.import_module("syne_tune.backend.trial_status")
    space: Any = importlib.import_module("syne_tune.config_space")
    when: Any = importlib.import_module("datetime")
    curves = json.load(sys.stdin)
    scheduler = asha.AsynchronousSuccessiveHalving(
        {"x": space.uniform(0, 1)}, metric="loss", time_attr="epoch", max_t=len(curves[0]) + 1
    )
    trials = []
    for number in range(len(curves)):
        trial = backend.Trial(number, {"x": number / len(curves)}, when.datetime.now())
        scheduler.on_trial_add(trial)
        trials.append(trial)
    seconds = []
    for epoch in range(1, RUNG + 1):
        for trial, curve in zip(trials, curves, strict=True):
            result = {"loss": curve[epoch - 1][1], "epoch": epoch}
            began = time.process_time()
            scheduler.on_trial_result(trial, result)
            if epoch == RUNG:
                seconds.append(time.process_time() - began)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
