"""Figures as image files, through kaleido (optional), which draws them in a Chrome or Chromium of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsgd_emu.errors import ConfigError, listed, nearest
from hsgd_emu.report.content import gather
from hsgd_emu.report.figure import Figure, Picture, plotly_text
from hsgd_emu.report.sections import sections
from hsgd_emu.study.sweep.store import is_study_folder

FORMATS = ("png", "svg")
_WIDTH_PX, _HEAD_PX, _SCALE = 960, 80, 2
_ON_PAPER: dict[str, Any] = {
    "paper_bgcolor": "#ffffff",
    "plot_bgcolor": "#ffffff",
    "font": {"family": "sans-serif", "size": 14, "color": "#333333"},
    "showlegend": True,
}


@dataclass(frozen=True)
class Image:
    """One picture to be written. name: of its file, without the ending."""

    name: str
    figure: Figure
    picture: Picture


def write_images(folders: Sequence[Path], format: str, out: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """Write figures of the report of runs as image files into `out` and return their paths.

    Args:    wanted: names of figures (each with all its pictures) or of single pictures; default: every figure once.
    Raises:  ConfigError: no such format, figure or run; kaleido or a browser is missing.
    """
    if format not in FORMATS:
        raise ConfigError.of("--format", "", f"{format!r} is not png or svg{nearest(format, FORMATS)}")
    studies = [folder for folder in folders if is_study_folder(folder)]
    if studies:
        text = "is a study; its figures are saved one by one by the camera button in its report"
        raise ConfigError.of(str(studies[0]), "", text)
    kaleido = _kaleido()
    with gather(folders) as content:
        figures = [figure for section in sections(content) for figure in section.figures]
        images = _chosen(figures, wanted)
        paths = [out / f"{image.name}.{format}" for image in images]
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError.of(str(out), "", f"cannot be written ({error.strerror})") from error
        _draw(kaleido, [_job(image, path, format) for image, path in zip(images, paths, strict=True)])
    return paths


def _chosen(figures: Sequence[Figure], wanted: Sequence[str]) -> list[Image]:
    every = [list(_images(figure)) for figure in figures]
    if not wanted:
        return [images[0] for images in every]
    by_name = {figure.id: images for figure, images in zip(figures, every, strict=True)}
    by_name |= {image.name: [image] for images in every for image in images if len(images) > 1}
    unknown = [name for name in wanted if name not in by_name]
    if unknown:
        known = listed(list(by_name))
        raise ConfigError.of(
            f"--figure {unknown[0]}", "", f"no such figure{nearest(unknown[0], by_name)}; there are {known}"
        )
    return list({image.name: image for name in wanted for image in by_name[name]}.values())


def _images(figure: Figure) -> Iterator[Image]:
    for number, picture in enumerate(figure.pictures):
        # A key may hold a user's name, which makes no file name: then pictures are numbered.
        plain = all(part.replace("_", "").isalnum() and part.isascii() for part in picture.key)
        ending = "-".join(picture.key) if plain else str(number + 1)
        name = figure.id if len(figure.pictures) == 1 else f"{figure.id}-{ending}"
        yield Image(name, figure, picture)


def _job(image: Image, path: Path, format: str) -> dict[str, Any]:
    figure = image.figure.plotly(image.picture.key)
    margin = figure.layout.margin.to_plotly_json()
    margin |= {"t": margin.get("t", 0) + _HEAD_PX, "b": margin.get("b", 0) + 20, "l": margin.get("l", 0) + 20}
    figure.update_layout(_ON_PAPER, margin=margin, title={"text": plotly_text(_title(image)), "x": 0.01, "y": 0.98})
    _explain_colours(figure, image.figure.key)
    height = image.figure.height_px + _HEAD_PX
    place = {"x": 0.01, "y": 1 - 44 / height, "xref": "container", "yref": "container", "yanchor": "top"}
    figure.update_layout(legend={"orientation": "h", "traceorder": "normal", **place})
    size = {"width": _WIDTH_PX, "height": height, "scale": _SCALE, "format": format}
    return {"fig": figure.to_plotly_json(), "path": path, "opts": size}


def _title(image: Image) -> str:
    chosen = zip(image.figure.switches, image.picture.key, strict=True)
    labels = [dict(switch.options)[key] for switch, key in chosen if len(switch.options) > 1]
    return f"{image.figure.title}{': ' * bool(labels)}{', '.join(labels)}"


def _explain_colours(figure: Any, key: Sequence[tuple[str, str]]) -> None:
    """Add the figure's own key, or give the name of each case one entry, in their order on the page."""
    seen = set[str]()
    for trace in figure.data:
        trace.showlegend = not key and bool(trace.name) and trace.name not in seen and trace.hoverinfo != "skip"
        if isinstance(trace.meta, int):
            trace.legendrank = trace.meta + 1
        if trace.showlegend:
            seen.add(trace.name)
    for label, colour in key:
        marker = {"color": colour, "symbol": "square", "size": 12}
        figure.add_scatter(x=[None], y=[None], mode="markers", name=plotly_text(label), marker=marker, showlegend=True)


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
