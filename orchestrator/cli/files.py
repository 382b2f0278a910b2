"""A spec's file as the document that the API takes: `base` and `policy` given as paths are put in place."""

from collections.abc import Iterator
from pathlib import Path

from orchestrator.cli.documents import Document, read_document
from orchestrator.cli.errors import BadUsage

POLICY_ENDINGS = (".json", ".yaml", ".yml")
PACKAGE = Path(__file__).resolve().parent.parent


def read_spec(path: Path) -> Document:
    """The spec in `path`, complete. Raises `BadUsage` for a file that is missing or not a mapping."""
    spec = read_document(path)
    base, policy = spec.get("base"), spec.get("policy")
    if isinstance(base, str):
        spec["base"] = read_document(locate(base, path, "base"))
    if isinstance(policy, str) and policy.endswith(POLICY_ENDINGS):
        spec["policy"] = read_document(locate(policy, path, "policy"))
    return spec


def locate(text: str, spec_file: Path, field: str) -> Path:
    """The file that a spec names: beside the spec, in the working directory, or above either of them."""
    wanted = Path(text).expanduser()
    looked = [*_candidates(wanted, spec_file)]
    found = next((file for file in looked if file.is_file()), None)
    if found is None:
        raise BadUsage(
            f"{spec_file}: {field}: there is no file `{text}`",
            f"looked beside the spec ({spec_file.resolve().parent}), in the working directory "
            f"({Path.cwd()}) and in the folders above them",
        )
    return found


def _candidates(wanted: Path, spec_file: Path) -> Iterator[Path]:
    if wanted.is_absolute():
        yield wanted
        return
    beside, here = spec_file.resolve().parent, Path.cwd()
    for folder in (beside, here, *beside.parents, *here.parents):
        yield folder / wanted
    if wanted.parts[:1] == ("configs",):
        yield configs().joinpath(*wanted.parts[1:])


def configs() -> Path:
    """The configs that came with Assay: inside the package when installed, else the repository's."""
    installed = PACKAGE / "_configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"
