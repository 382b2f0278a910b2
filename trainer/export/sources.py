"""The code of the model as flat files that import nothing of this project."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENTRY = "trainer.export.exported.modeling_assay"
REPLACED = {"trainer.config": "trainer.export.exported.config"}
"""The trainer's config checks what people write; an exported model reads settings that were checked."""
_IMPORT = re.compile(r"^(\s*)from (trainer(?:\.\w+)+) import", re.MULTILINE)


def model_sources() -> dict[str, str]:
    """The text of each file by its name: the wrapper, and every module that it comes to import."""
    sources: dict[str, str] = {}
    waiting = [ENTRY]
    while waiting:
        module = waiting.pop()
        if _file(module) not in sources:
            text = (ROOT / f"{module.replace('.', '/')}.py").read_text()
            sources[_file(module)] = _IMPORT.sub(_relative, text)
            waiting += [_found(match) for match in _IMPORT.finditer(text)]
    return sources


def _relative(match: re.Match[str]) -> str:
    return f"{match[1]}from .{_file(_found(match)).removesuffix('.py')} import"


def _found(match: re.Match[str]) -> str:
    return REPLACED.get(match[2], match[2])


def _file(module: str) -> str:
    return f"{module.rpartition('.')[2]}.py"
