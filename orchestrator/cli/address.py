"""Where the service is: what the person says, else what the service wrote down, else the default."""

import json
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.cli.errors import BadUsage

DEFAULT_URL = "http://127.0.0.1:8700"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Address:
    """A base URL without a slash at its end, and where it was found."""

    url: str
    source: str

    @property
    def is_loopback(self) -> bool:
        return urlsplit(self.url).hostname in LOOPBACK


def find_address(option: str | None = None) -> Address:
    """`--url`, else `ASSAY_URL`, else `<home>/service.json`, else port 8700 of this machine."""
    if option is not None:
        return Address(_checked(option, "--url"), "--url")
    said = setting("url")
    if said:
        return Address(_checked(said, "ASSAY_URL"), "ASSAY_URL")
    file = home() / "service.json"
    written = read_service_file(file).get("url")
    if isinstance(written, str):
        return Address(_checked(written, str(file)), str(file))
    return Address(DEFAULT_URL, "the default")


def read_service_file(file: Path) -> dict[str, object]:
    """What the service wrote about itself; empty where there is nothing to read."""
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def home() -> Path:
    """The service's data folder: `ASSAY_HOME`, else the platform's place for it."""
    said = setting("home")
    if said:
        return Path(said).expanduser()
    from platformdirs import user_data_path

    return user_data_path("assay")


def setting(name: str) -> str | None:
    """`ASSAY_<NAME>`, else the key `name` of the TOML file that `ASSAY_CONFIG` names."""
    said = os.environ.get(f"ASSAY_{name.upper()}")
    if said:
        return said
    file = os.environ.get("ASSAY_CONFIG")
    if not file:
        return None
    try:
        value = tomllib.loads(Path(file).read_text()).get(name)
    except (OSError, ValueError) as error:
        raise BadUsage(f"ASSAY_CONFIG: `{file}` cannot be read: {error}") from None
    return None if value is None else str(value)


def _checked(text: str, source: str) -> str:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme in ("http", "https") and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        is_sound = False
    if not is_sound:
        raise BadUsage(f"{source}: `{text}` is no address; write one like {DEFAULT_URL}")
    return url.rstrip("/")


def _is_host(text: str) -> bool:
    """A name or an IP address. Raises `UnicodeError`, a `ValueError`, for a name that DNS cannot hold."""
    return bool(text.encode("idna")) and bool(re.fullmatch(r"[\w.-]+|[0-9a-f:.]+(%\w+)?", text))
