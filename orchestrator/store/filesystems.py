"""Which file system a path lies on: SQLite's locks and its WAL need one of this machine's own."""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "gpfs", "beegfs"),
        *("beegfs_nodev", "glusterfs", "orangefs", "pvfs2", "wekafs", "vboxsf", "davfs", "ncpfs"),
        *("fuse.sshfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.s3fs", "fuse.gcsfuse"),
        *("fuse.rclone", "fuse.juicefs", "fuse.JuiceFS", "fuse.mfs", "fuse.davfs2", "fuse.smbnetfs"),
        *("fuse.goofys", "fuse.mount-s3", "fuse.blobfuse", "fuse.blobfuse2", "fuse.dfs", "fuse.gpfs"),
    }
)
"""Types that other machines can reach, too, or whose locks are not those of a disk."""


def read_mounts() -> str:
    """The mount table of this process; empty where the system keeps none there."""
    try:
        return MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return ""


def file_system_of(path: Path, mounts: str) -> str | None:
    """The type of the file system that holds an absolute path, by a table as in `/proc/self/mountinfo`.

    None if no line of the table holds it. Where two are mounted at one place, the later one hides the other.
    """
    found: tuple[int, str] | None = None
    for line in mounts.splitlines():
        mount = _mount(line)
        if mount is None or not path.is_relative_to(mount[0]):
            continue
        depth = len(Path(mount[0]).parts)
        if found is None or depth >= found[0]:
            found = (depth, mount[1])
    return found[1] if found else None


def refusal(file: Path, mounts: str) -> str | None:
    """Why a SQLite database must not lie there, and the ways out; None where it may."""
    kind = file_system_of(file.resolve(), mounts)
    if kind not in NETWORK:
        return None
    return (
        f"the SQLite database {file} would lie on a network file system ({kind}), where its locks do not "
        "hold and that damages it: set ASSAY_HOME to a folder of a local disk, or ASSAY_DATABASE_URL to a "
        "file on one (sqlite:////local/assay.sqlite3) or to PostgreSQL (postgresql://user:password@host/name)"
    )


def _mount(line: str) -> tuple[str, str] | None:
    """(mount point, type). The fields before the lone dash vary in number, those behind it do not."""
    before, dash, behind = line.partition(" - ")
    fields = before.split(" ")
    if not dash or len(fields) < 5:
        return None
    return _spelled_out(fields[4]), behind.split(" ")[0]


def _spelled_out(escaped: str) -> str:
    """The kernel writes blanks and backslashes of a path as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped)
