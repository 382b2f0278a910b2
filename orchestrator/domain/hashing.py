"""One spelling for equal values, and the hash that identifies it."""

import hashlib
import json


def canonical_json(value: object) -> str:
    """One spelling for equal values: sorted keys, no spaces. Raises `ValueError` on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(value: object) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
