"""Where tokenised text is kept when nobody says where."""

import os
from pathlib import Path


def default_cache() -> Path:
    """`ASSAY_CACHE`, or a folder under the user's cache."""
    return Path(os.environ.get("ASSAY_CACHE") or Path.home() / ".cache" / "assay")
