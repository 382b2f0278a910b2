"""What torchrun says to each process that it starts, by the environment. Imports no tensor library."""

import os


def environment_size() -> int:
    """How many processes train together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def environment_rank() -> int:
    """Which of them this one is; 0 leads."""
    return int(os.environ.get("RANK", "0"))


def launch_id() -> str:
    """Names this start by torchrun: what another start left in a directory does not have it."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "none")


def local_rank() -> int:
    """Which device of its host this one trains on."""
    return int(os.environ.get("LOCAL_RANK", "0"))
