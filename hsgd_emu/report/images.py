"""Figures as image files, through kaleido (optional), which draws them in a Chrome or Chromium of this machine."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hsgd_emu.atomic import refuse_foreign, write_atomically
from hsgd_emu.errors import ConfigError, listed, nearest, unwritable
from hsgd_emu.report import only_study
from hsgd_emu.report.content import gather
from hsgd_emu.report.figure import Figure, Picture
from hsgd_emu.report.image import Image, Key, job
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
        raise ConfigError.of(
            f"--figure {unknown[0]}", "", f"no such figure{nearest(unknown[0], by_name)}; there are {known}"
        )
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
        yield Image(name, figure.id, _title(figure, picture), figure.height_px, partial(_drawn, figure, picture), key)


def _drawn(figure: Figure, picture: Picture) -> dict[str, Any]:
    return dict(figure.plotly(picture.key).to_plotly_json())


def _title(figure: Figure, picture: Picture) -> str:
    chosen = zip(figure.switches, picture.key, strict=True)
    labels = [dict(switch.options)[key] for switch, key in chosen if len(switch.options) > 1]
    return f"{figure.title}{': ' * bool(labels)}{', '.join(labels)}"


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
