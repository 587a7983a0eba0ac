"""Figures as image files, through kaleido (optional), which draws them in a Chrome or Chromium of this machine."""

from __future__ import annotations

import struct
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hsgd_emu.atomic import refuse_foreign, write_atomically
from hsgd_emu.errors import ConfigError, listed, nearest, unwritable
from hsgd_emu.report import only_study
from hsgd_emu.report.content import gather
from hsgd_emu.report.figure import Figure, Picture, plotly_text
from hsgd_emu.report.looks import shortened
from hsgd_emu.report.sections import sections

FORMATS = ("png", "svg")
_MARK = "drawn by hsgd_emu"
"""In every image that we write, by which it is known as ours."""


def write_images(
    folders: Sequence[Path], format: str, out: Path, wanted: Sequence[str] = (), force: bool = False
) -> list[Path]:
    """Write figures of the report of runs, or of one study, as image files into `out` and return their paths.

    Args:    wanted: names of figures (each with all its pictures) or of single pictures; default: every figure once.
             force: overwrite files that are no such images of ours.
    Raises:  ConfigError: no such format, figure, run or study, nothing to draw; kaleido or a browser is missing.
    """
    if format not in FORMATS:
        raise ConfigError.of("--format", "", f"{format!r} is not png or svg{nearest(format, FORMATS)}")
    study = only_study(folders)
    kaleido = _kaleido()
    with _of_study(study) if study else _of_runs(folders) as every:
        if not every:
            raise ConfigError.of(str(folders[0]), "", "there is no figure yet; its report (--format html) says why")
        images = _chosen(every, wanted)
        paths = [out / f"{image.name}.{format}" for image in images]
        for path in paths:
            refuse_foreign(path, _MARK, force)
        with TemporaryDirectory() as temporary:
            drawn = [Path(temporary) / path.name for path in paths]
            _draw(kaleido, [job(image, path, format) for image, path in zip(images, drawn, strict=True)])
            try:
                out.mkdir(parents=True, exist_ok=True)
                for path, source in zip(paths, drawn, strict=True):
                    write_atomically(path, _marked(source.read_bytes(), format))
            except OSError as error:
                raise unwritable(out, error) from error
    return paths


def _marked(image: bytes, format: str) -> bytes:
    """Return an image that says of itself that it is ours."""
    if format == "svg":
        return image + f"<!-- {_MARK} -->\n".encode()
    # A chunk of text before the last one, which is the 12 bytes of IEND (PNG specification, 11.3.4).
    chunk = b"tEXtSoftware\0" + _MARK.encode()
    text = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return image[:-12] + text + image[-12:]


def _chosen(every: Sequence[Image], wanted: Sequence[str]) -> list[Image]:
    figures: dict[str, list[Image]] = {}
    for image in every:
        figures.setdefault(image.of, []).append(image)
    if not wanted:
        return [images[0] for images in figures.values()]
    by_name = {**{image.name: [image] for image in every}, **figures}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        known = listed([*figures, *(name for name in by_name if name not in figures)])
        text = f"no such figure{nearest(unknown[0], by_name)}; there are {known}"
        raise ConfigError.of(f"--figure {unknown[0]}", "", text)
    return list({image.name: image for name in wanted for image in by_name[name]}.values())


@contextmanager
def _of_study(folder: Path) -> Iterator[list[Image]]:
    from hsgd_emu.report.study.content import gather
    from hsgd_emu.report.study.images import study_images

    yield study_images(gather(folder))


@contextmanager
def _of_runs(folders: Sequence[Path]) -> Iterator[list[Image]]:
    with gather(folders) as content:
        figures = [figure for section in sections(content) for figure in section.figures]
        yield [image for figure in figures for image in _images(figure)]


def _images(figure: Figure) -> Iterator[Image]:
    key = tuple(Key(*entry) for entry in figure.key)
    for number, picture in enumerate(figure.pictures):
        # A key may hold a user's name, which makes no file name: then pictures are numbered.
        plain = all(part.replace("_", "").isalnum() and part.isascii() for part in picture.key)
        ending = "-".join(picture.key) if plain else str(number + 1)
        name = figure.id if len(figure.pictures) == 1 else f"{figure.id}-{ending}"
        chosen = zip(figure.switches, picture.key, strict=True)
        labels = [dict(switch.options)[part] for switch, part in chosen if len(switch.options) > 1]
        title = f"{figure.title}{': ' * bool(labels)}{', '.join(labels)}"
        yield Image(name, figure.id, title, figure.height_px, partial(_drawn, figure, picture), key)


def _drawn(figure: Figure, picture: Picture) -> dict[str, Any]:
    return dict(figure.plotly(picture.key).to_plotly_json())


def _kaleido() -> Any:
    try:
        import kaleido  # type: ignore[import-untyped]
    except ImportError:
        text = "images need kaleido; install it with `pip install 'hsgd-emu[images]'`"
        raise ConfigError.of("--format", "", text) from None
    return kaleido


def _draw(kaleido: Any, jobs: list[dict[str, Any]]) -> None:
    from kaleido.errors import ChromeNotFoundError  # type: ignore[import-untyped]

    try:
        kaleido.write_fig_from_object_sync(jobs, kopts={"mathjax": False}, cancel_on_error=True)
    except ChromeNotFoundError:
        text = "images are drawn by a browser, and none was found; install Chrome or Chromium, or `plotly_get_chrome`"
        raise ConfigError.of("--format", "", text) from None


# --- one picture, to stand alone --------------------------------------------------------------------

_WIDTH_PX, _SCALE = 960, 2
_TITLE_CHARACTERS, _TITLE_LINE_PX, _KEY_ROW_PX, _AIR_PX = 100, 26, 24, 26
_BELOW_PX = 52
"""For the labels and the title of an axis."""
_MOST_LABEL, _CHARACTER_PX, _MARK_PX = 60, 8, 45
"""Of the key's entries: the longest label, and about how wide a character and what stands before them are."""
_ON_PAPER: dict[str, Any] = {"paper_bgcolor": "#ffffff", "font": {"family": "sans-serif", "size": 14, "color": "#333"}}


@dataclass(frozen=True)
class Key:
    """What a colour means. symbol: of its mark, as plotly names it."""

    label: str
    colour: str
    symbol: str = "square"


@dataclass(frozen=True)
class Image:
    """One picture to be written.

    name: of its file, without the ending; of: of the figure it is a picture of; draw: return plotly's `data` and
    `layout`; key: what the colours mean; without it the names of the traces stand there.
    """

    name: str
    of: str
    title: str
    height_px: int
    draw: Callable[[], Mapping[str, Any]]
    key: tuple[Key, ...] = ()


def job(image: Image, path: Path, format: str) -> dict[str, Any]:
    """Return what kaleido is given to draw an image."""
    figure = image.draw()
    data = [*_named(figure["data"], bool(image.key)), *map(_entry, image.key)]
    title = textwrap.wrap(image.title, _TITLE_CHARACTERS)
    title_px = _AIR_PX + _TITLE_LINE_PX * len(title)
    head_px = title_px + _KEY_ROW_PX * _rows([trace["name"] for trace in data if trace["showlegend"]])
    height_px = image.height_px + head_px + _BELOW_PX // 2
    place = {"x": 0.01, "y": 1 - title_px / height_px, "xref": "container", "yref": "container", "yanchor": "top"}
    bottom = {"yref": "container", "y": 1 - 38 / height_px, "yanchor": "bottom"}
    margin = figure["layout"].get("margin", {})
    more_px = {"t": head_px, "b": _BELOW_PX, "l": 20, "r": 8}
    layout = {
        **figure["layout"],
        **_ON_PAPER,
        "xaxis": _apart(figure["layout"].get("xaxis", {})),
        "margin": {**margin, **{side: margin.get(side, 0) + px for side, px in more_px.items()}},
        # At the place of its first line; the others go on below it.
        "title": {"text": "<br>".join(map(plotly_text, title)), "x": 0.01, **bottom},
        "showlegend": True,
        "legend": {"orientation": "h", "traceorder": "normal", **place},
    }
    size = {"width": _WIDTH_PX, "height": height_px, "scale": _SCALE, "format": format}
    return {"fig": {"data": data, "layout": layout}, "path": path, "opts": size}


def _apart(axis: Mapping[str, Any]) -> dict[str, Any]:
    """Return an axis whose title stands off its labels: else it stands at the very edge, which cuts it."""
    title = axis.get("title")
    return {**axis, "title": {**title, "standoff": 10}} if isinstance(title, Mapping) else dict(axis)


def _named(traces: list[dict[str, Any]], key: bool) -> list[dict[str, Any]]:
    """Return the traces, those with one name as one entry of the legend, in the order of cases on the page."""
    found, seen = [], set[str]()
    for trace in traces:
        name = trace.get("name", "")
        shown = not key and bool(name) and name not in seen and trace.get("hoverinfo") != "skip"
        seen |= {name} if shown else set()
        rank = {"legendrank": trace["meta"] + 1} if isinstance(trace.get("meta"), int) else {}
        found.append({**trace, "showlegend": shown, **rank})
    return found


def _entry(key: Key) -> dict[str, Any]:
    """Return a trace that draws nothing but its entry in the legend."""
    marker = {"color": key.colour, "symbol": key.symbol, "size": 12}
    name = plotly_text(shortened(key.label, _MOST_LABEL))
    nothing = {"type": "scatter", "mode": "markers", "x": [None], "y": [None]}
    return {**nothing, "name": name, "marker": marker, "showlegend": True}


def _rows(names: list[str]) -> int:
    """Return about how many rows a legend has: plotly gives all entries the same width where one row is too few."""
    widths_px = [_MARK_PX + _CHARACTER_PX * len(name) for name in names]
    if not names or sum(widths_px) <= _WIDTH_PX:
        return int(bool(names))
    return -(-len(names) // max(_WIDTH_PX // max(widths_px), 1))
