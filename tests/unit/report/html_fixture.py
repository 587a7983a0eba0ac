"""Reading pages: their elements, and the words that a reader sees."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

HOSTILE = ("<script>alert(1)</script>", "<b>bold</b> & \"q\" 'r' %{y} </script>")


class Elements(HTMLParser):
    """Collects the tags, with their attributes, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._raw = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.text.append(data)

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attrs for name, attrs in self.tags if name == tag)


def parse(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    return elements


def words(html: str) -> str:
    return " ".join(" ".join(parse(html).text).split())


def constant(html: str, name: str) -> Any:
    """Return what the page's script is given under a name."""
    line = re.search(rf"^const {name} = (.*);$", html, re.MULTILINE)
    assert line
    return json.loads(line[1])


def figure_in(html: str, which: str, target: int, key: str = "") -> dict[str, Any]:
    """Return one figure of a study's page, made whole."""
    figures = constant(html, "FIGURES")[which]
    figure = dict(figures[str(target)][key])
    data = [{**figures["first"], **trace} if i == 0 else trace for i, trace in enumerate(figure["data"])]
    return {**figure, "data": data, "layout": {**figures["layout"], **figure["layout"]}}
