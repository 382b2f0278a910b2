"""What only real processes can do: outlive their service, leave children behind, lose their pid."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from engine_rigs import WORKER, LocalRig, becomes, eventually, state_of

from orchestrator.engines import processes, workers
from orchestrator.engines.base import EngineError, Handle, StateKind, WorkerSpec
from orchestrator.engines.claims import Claims
from orchestrator.engines.local import LocalEngine

KEY = "run-7-attempt-1"

SERVICE = """
import sys
from pathlib import Path
from orchestrator.engines import spawn
from orchestrator.engines.base import WorkerSpec
from orchestrator.engines.claims import Claims
from orchestrator.engines.local import LocalEngine
how, state, home, key, *argv = sys.argv[1:]
spec = WorkerSpec(tuple(argv), Path(home), ("cpu:0",))
print("ready", flush=True)
sys.stdin.readline()
if how == "submit":
    print(LocalEngine(Path(state), 2, False, lambda: 0.0).submit(key, spec).data["pid"], flush=True)
    sys.stdin.readline()
else:
    spawn.start(Claims(Path(state)), key, spec, {"PATH": "/usr/bin:/bin"})
"""


def service(local: LocalRig, spec: WorkerSpec, how: str = "submit") -> subprocess.Popen[str]:
    """Another service process over the same state, ready to submit when it is given a line."""
    argv = [
        sys.executable,
        "-c",
        SERVICE,
        how,
        str(local.state_directory),
        str(spec.directory),
        KEY,
        *spec.argv,
    ]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert answer(process) == "ready"
    return process


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def started(local: LocalRig, script: str) -> tuple[LocalEngine, Handle]:
    """A worker that runs the script and has said `started`."""
    engine = local.engine()
    handle = engine.submit(KEY, local.script(KEY, script))
    eventually(lambda: local.is_up(engine, handle))
    return engine, handle


def members(local: LocalRig) -> list[processes.Process]:
    return workers.members(Claims(local.state_directory), KEY)


def forge(
    local: LocalRig, *, boot: str | None = None, started_later: int = 0, pid: int | None = None
) -> Handle:
    """A claim by the process of this test, or by another."""
    head, _, tail = Path(f"/proc/{pid or 'self'}/stat").read_text().strip().rpartition(")")
    fields = tail.split()
    fields[19] = str(int(fields[19]) + started_later)
    text = f"{boot or processes.boot_id()}\n{head}) {' '.join(fields)}\n{local.home(KEY)}\n"
    Claims(local.state_directory).claim_path(KEY).write_text(text)
    found = local.engine().find(KEY)
    assert found
    return found


def test_two_service_processes_get_one_worker(local: LocalRig) -> None:
    spec = local.script(KEY, WORKER)
    services = [service(local, spec) for _ in range(3)]
    try:
        for process in services:
            say(process)
        assert len({answer(process) for process in services}) == 1
    finally:
        for process in services:
            end(process)
    engine = local.engine()
    handle = engine.list_owned()[0]
    eventually(lambda: local.is_up(engine, handle))
    local.finish(KEY, 0)
    becomes(engine, handle, StateKind.EXITED)
    assert local.starts(KEY) == 1


def test_a_worker_outlives_a_killed_service_and_is_adopted(local: LocalRig) -> None:
    before = service(local, local.script(KEY, WORKER))
    say(before)
    pid = answer(before)
    end(before)
    engine = local.engine()
    handle = engine.submit(KEY, local.script(KEY, WORKER))
    assert str(handle.data["pid"]) == pid
    eventually(lambda: local.is_up(engine, handle))
    assert state_of(engine, handle).kind is StateKind.RUNNING
    local.finish(KEY, 12)
    assert becomes(engine, handle, StateKind.EXITED).code == 12
    assert local.starts(KEY) == 1


def test_a_service_that_dies_while_it_starts_a_worker_leaves_one_that_is_found(local: LocalRig) -> None:
    before = service(local, local.script(KEY, WORKER), how="start and die")
    say(before)
    before.wait()
    end(before)
    engine = local.engine()
    handle = engine.submit(KEY, local.script(KEY, WORKER))
    eventually(lambda: local.is_up(engine, handle))
    local.finish(KEY, 0)
    becomes(engine, handle, StateKind.EXITED)
    assert local.starts(KEY) == 1


def test_cancel_ends_children_too_even_in_a_session_of_their_own(local: LocalRig) -> None:
    engine, handle = started(local, "sleep 1000 & setsid sleep 1000 & echo started; wait")
    eventually(lambda: len(members(local)) == 3)
    engine.cancel(handle, grace_seconds=1e6)
    assert becomes(engine, handle, StateKind.EXITED).code == -signal.SIGTERM
    eventually(lambda: not members(local))


def test_a_child_that_ignores_term_is_killed_after_the_grace(local: LocalRig) -> None:
    engine, handle = started(local, "(trap '' TERM; echo started; read -r _ < orders) & wait")
    engine.cancel(handle, grace_seconds=30)
    becomes(engine, handle, StateKind.EXITED)
    assert members(local)
    local.clock.now += 30
    eventually(lambda: bool(engine.poll([handle])) and not members(local))


def test_a_signal_reaches_the_worker_and_not_its_children(local: LocalRig) -> None:
    engine, handle = started(
        local, "trap 'echo told' USR1; sleep 1000 & echo started; wait; read -r code < orders"
    )
    eventually(lambda: len(members(local)) == 2)
    engine.signal(handle, signal.SIGUSR1)
    eventually(lambda: b"told" in engine.logs(handle, 0, 4096)[0])
    assert len(members(local)) == 2


def test_the_exit_code_is_kept_when_a_worker_kills_its_own_group(local: LocalRig) -> None:
    engine, handle = started(local, "echo started; kill -KILL 0")
    assert becomes(engine, handle, StateKind.EXITED).code == -signal.SIGKILL


def test_the_supervisor_outlives_term_and_hangup(local: LocalRig) -> None:
    engine, handle = started(local, WORKER)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(int(str(handle.data["pid"])), signum)
    local.finish(KEY, 10)
    assert becomes(engine, handle, StateKind.EXITED).code == 10


def test_a_worker_without_its_supervisor_runs_and_then_is_lost(local: LocalRig) -> None:
    engine, handle = started(local, WORKER)
    os.kill(int(str(handle.data["pid"])), signal.SIGKILL)
    eventually(lambda: state_of(engine, handle).reason == "its supervisor is gone")
    assert state_of(engine, handle).kind is StateKind.RUNNING
    engine.signal(handle, signal.SIGTERM)
    becomes(engine, handle, StateKind.LOST)


def test_ended_supervisors_are_reaped(local: LocalRig) -> None:
    engine, handle = started(local, "echo started")
    becomes(engine, handle, StateKind.EXITED)
    eventually(lambda: bool(engine.poll([handle])) and not Path(f"/proc/{handle.data['pid']}").exists())


def test_a_forged_claim_is_running_while_its_process_is(local: LocalRig) -> None:
    assert state_of(local.engine(), forge(local)).kind is StateKind.RUNNING
    Claims(local.state_directory).claim_path(KEY).unlink()


def test_another_process_with_the_same_pid_is_not_the_worker(local: LocalRig) -> None:
    engine, handle = local.engine(), forge(local, started_later=1)
    assert state_of(engine, handle).kind is StateKind.LOST
    engine.cancel(handle, grace_seconds=0)  # and this process is not killed in its place


def test_a_stranger_with_the_workers_pid_is_neither_told_nor_killed(local: LocalRig) -> None:
    """Whoever got the pid has another start time."""
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        process = processes.read(stranger.pid)
        assert process is not None
        handle = forge(local, pid=stranger.pid, started_later=1)
        engine = local.engine()
        assert state_of(engine, handle).kind is StateKind.LOST
        engine.signal(handle, signal.SIGTERM)
        engine.cancel(handle, grace_seconds=0)
        engine.poll([handle])
        assert stranger.poll() is None
        assert processes.is_alive(process)
    finally:
        stranger.kill()
        stranger.wait()


def test_what_a_worker_left_behind_keeps_its_record(local: LocalRig) -> None:
    engine, handle = started(local, "setsid sleep 1000 & echo started")
    becomes(engine, handle, StateKind.EXITED)
    eventually(lambda: bool(engine.poll([handle])) and len(members(local)) == 1)
    assert engine.forget([KEY]) == 0
    engine.cancel(handle, grace_seconds=0)
    eventually(lambda: bool(engine.poll([handle])) and not members(local))
    assert engine.forget([KEY]) == 1
    assert not list(local.state_directory.iterdir())


def test_records_of_an_earlier_boot_are_dropped(local: LocalRig) -> None:
    handle = forge(local, boot="0d4e2e0c-0000-4000-8000-000000000000")
    assert local.engine().forget([handle.key]) == 1


def test_a_record_that_cannot_be_read_is_kept(local: LocalRig) -> None:
    handle = forge(local)
    claim = Claims(local.state_directory).claim_path(KEY)
    claim.write_text("boot only")
    assert local.engine().forget([handle.key]) == 0
    claim.unlink()


def test_the_log_of_a_start_that_may_not_have_been_is_empty(local: LocalRig) -> None:
    assert local.engine().logs(Handle("local", KEY), 0, 100) == (b"", 0)


def test_after_a_reboot_a_worker_is_lost_unless_it_had_ended(local: LocalRig) -> None:
    engine, handle = local.engine(), forge(local, boot="0d4e2e0c-0000-4000-8000-000000000000")
    assert state_of(engine, handle).kind is StateKind.LOST
    engine.cancel(handle, grace_seconds=0)
    Claims(local.state_directory).ending_path(KEY).write_text("0\n")
    assert state_of(engine, handle).code == 0


@pytest.mark.parametrize("text", ["", "boot only\n", "boot\nno stat line\n/somewhere\n"])
def test_a_claim_that_cannot_be_understood_is_unknown(local: LocalRig, text: str) -> None:
    engine, handle = local.engine(), forge(local)
    claim = Claims(local.state_directory).claim_path(KEY)
    claim.write_text(text)
    assert state_of(engine, handle).kind is StateKind.UNKNOWN
    claim.unlink()


def test_a_claim_that_cannot_be_read_is_unknown_and_starts_nothing(local: LocalRig) -> None:
    engine, handle = local.engine(), forge(local)
    claim = Claims(local.state_directory).claim_path(KEY)
    claim.unlink()
    claim.mkdir()
    assert state_of(engine, handle).kind is StateKind.UNKNOWN
    with pytest.raises(EngineError):
        engine.submit(KEY, local.script(KEY, WORKER))
    claim.rmdir()


def test_a_state_directory_that_went_away_is_unknown(local: LocalRig) -> None:
    engine, handle = local.engine(), forge(local)
    shutil.rmtree(local.state_directory)
    assert state_of(engine, handle).kind is StateKind.UNKNOWN


def test_arguments_reach_the_program_as_they_are(local: LocalRig) -> None:
    engine = local.engine()
    odd = ("$(echo no)", "a b", "", "'", "--", "*")
    spec = WorkerSpec(("/usr/bin/env", "printf", "[%s]", *odd), local.home(KEY))
    handle = engine.submit(KEY, spec)
    assert becomes(engine, handle, StateKind.EXITED).code == 0
    assert engine.logs(handle, 0, 4096)[0].decode() == "".join(f"[{argument}]" for argument in odd)


def test_a_program_that_is_not_there_ends_with_127(local: LocalRig) -> None:
    engine = local.engine()
    handle = engine.submit(KEY, WorkerSpec(("no-such-program",), local.home(KEY)))
    assert becomes(engine, handle, StateKind.EXITED).code == 127
    assert b"no-such-program" in engine.logs(handle, 0, 4096)[0]


def test_a_start_that_failed_says_why_and_may_be_tried_again(local: LocalRig) -> None:
    engine, spec = local.engine(), local.script(KEY, WORKER)
    (spec.directory / "worker.log").mkdir()
    with pytest.raises(EngineError, match="IsADirectoryError"):
        engine.submit(KEY, spec)
    assert engine.find(KEY) is None
    (spec.directory / "worker.log").rmdir()
    assert state_of(engine, engine.submit(KEY, spec)).kind is StateKind.RUNNING
