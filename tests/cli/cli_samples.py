"""Objects of the API as the tests need them."""

from typing import Any

Json = dict[str, Any]

AT = "2026-01-02T03:04:05Z"


def experiment(status: str = "running", number: int = 1, **changes: Any) -> Json:
    return {
        "id": f"exp_{number}",
        "name": "aux",
        "question": "How much balance loss?",
        "status": status,
        "conclusion": None if status == "running" else "aux-0.0 is the winner",
        "control": "aux-0.01",
        "policy": {"name": "stage-gate", "hash": "ab" * 32},
        "spec": {},
        "spec_hash": "cd" * 32,
        "stages": [stage("screen", 1000, "running"), stage("confirm", 5000, "waiting")],
        "created_at": AT,
        "ended_at": None,
        **changes,
    }


def stage(name: str, steps: int, status: str) -> Json:
    conclusion = "screen promotes aux-0.0, of 2 ranked" if status == "closed" else None
    return {"name": name, "steps": steps, "status": status, "closed_at": None, "conclusion": conclusion}


def run(number: int, variant: str, step: int = 500, **changes: Any) -> Json:
    last = {"step": step, "tokens": step * 1000, "eval_loss": 4.357} if step else None
    return {
        "id": f"run_{number}",
        "experiment_id": "exp_1",
        "variant": variant,
        "seed": 0,
        "is_control": variant == "aux-0.01",
        "status": "running",
        "reason": None,
        "detail": None,
        "stage": "screen",
        "step": step,
        "target_step": 1000,
        "tokens_per_second": 10_000.0,
        "last_evaluation": last,
        "gap": None if variant == "aux-0.01" else 0.078,
        **changes,
    }


def criterion(name: str, verdict: str, text: str, *parts: Json, how: str | None = None) -> Json:
    return {"name": name, "verdict": verdict, "text": text, "parts": list(parts), "how": how}


BEHIND = "eval loss 4.357 is 0.078 above the control's 4.279 at step 1500; promotion needs 0.050 below"
NOT_SAME = "eval loss 4.357 is 0.078 above the control's 4.279 at step 1500; the same loss is within 0.005"


def promote_rule() -> Json:
    beats = criterion("beats_control", "fail", BEHIND)
    same = criterion("same_loss", "fail", NOT_SAME)
    both = criterion("all", "fail", NOT_SAME, same, how="all")
    return criterion("promote", "fail", BEHIND, beats, both, how="any")


def decision(number: int, kind: str = "decline", **changes: Any) -> Json:
    rule = promote_rule()
    return {
        "id": f"dec_{number}",
        "experiment_id": "exp_1",
        "run_id": "run_2",
        "variant": "aux-0.0",
        "seed": 0,
        "stage": "screen",
        "step": 1500,
        "kind": kind,
        "reason": "not_promoted",
        "author": "policy",
        "verdict": "fail",
        "text": f"not eligible at the gate of screen: {rule['text']}",
        "criteria": [rule],
        "evidence": {},
        "policy": {"name": "stage-gate", "hash": "ab" * 32},
        "created_at": AT,
        **changes,
    }


def event(number: int, kind: str, text: str, run_id: str | None = None) -> Json:
    return {"id": number, "kind": kind, "experiment_id": "exp_1", "run_id": run_id, "text": text, "at": AT}


def page(*items: Json, cursor: str | None = None) -> Json:
    return {"items": list(items), "next_cursor": cursor}
