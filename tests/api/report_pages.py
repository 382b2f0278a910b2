"""What a report's page shows, read back from its HTML."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from typing import Any

PLOT = re.compile(r'Plotly\.newPlot\(\s*"figure-([a-z-]+)",\s*')


def figures_of(page: str) -> dict[str, list[dict[str, Any]]]:
    """The traces of each figure that the page draws, by its name; each must have its place on the page."""
    found = {}
    for match in PLOT.finditer(page):
        traces, _ = json.JSONDecoder().raw_decode(page[match.end() :])
        assert f'id="figure-{match[1]}"' in page
        found[match[1]] = traces
    return found


def packed_of(page: str) -> dict[str, Any]:
    """Criteria and evidence of the decisions that the page's script unfolds."""
    match = re.search(r'id="packed">([^<]*)<', page)
    return {} if match is None else dict(json.loads(gzip.decompress(base64.b64decode(match[1]))))


class Reader(HTMLParser):
    """Text outside scripts and styles; ids; and what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.ids, self.loads, self._open = "", [], [], ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._open = tag
        if "id" in given:
            self.ids.append(given["id"])
        self.loads += [given[name] for name in ("src", "data", "poster", "srcset") if name in given]
        if tag in {"link", "iframe", "object", "img", "base"}:
            self.loads.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open not in {"script", "style"}:
            self.text += data


def read_page(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.text = " ".join(reader.text.split())
    return reader
