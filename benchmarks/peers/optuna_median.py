"""Optuna's MedianPruner on the curves of standard input: seconds of one decision on each run, as JSON.

Run by the Python that has Optuna; it shares nothing with this project.
"""

import importlib
import json
import sys
import time
from typing import Any


def main() -> None:
    optuna: Any = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = json.load(sys.stdin)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
    study = optuna.create_study(pruner=pruner)
    for curve in curves:
        values = {int(step): loss for step, loss in curve}
        trial = optuna.trial.create_trial(
            value=curve[-1][1], intermediate_values=values, params={}, distributions={}
        )
        study.add_trial(trial)
    seconds = []
    for curve in curves:
        trial = study.ask()
        for step, loss in curve:
            trial.report(loss, step)
        began = time.process_time()
        trial.should_prune()
        seconds.append(time.process_time() - began)
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
