"""The network as a picture: a tree from the global server at the left to the workers at the right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hsgd_emu.report.content import Content
from hsgd_emu.report.figure import Figure, Picture, Switch
from hsgd_emu.report.looks import colours, shortened
from hsgd_emu.report.outline import duration
from hsgd_emu.report.sentences import listed
from hsgd_emu.report.traffic import bytes_in_words
from hsgd_emu.report.tree_data import View, columns
from hsgd_emu.report.tree_drawing import SERVER_COLOUR, WORKER_COLOUR, Drawing, height_px
from hsgd_emu.topology.tree import Topology


def network(content: Content) -> Figure | None:
    """Return the runs' networks, a picture each; runs on the same network share one."""
    views = _views(content)
    if not views:
        return None
    names = list(dict.fromkeys(name for _, view in views for name in view.wires))
    colour_of = dict(zip(names, colours(len(names)), strict=True))
    drawings = [Drawing(view, colour_of) for _, view in views]
    several = len(views) > 1
    pictures = tuple(
        Picture((str(number),) if several else (), _text(view), drawing.traces(), drawing.layout())
        for number, ((_, view), drawing) in enumerate(zip(views, drawings, strict=True))
    )
    options = tuple((str(number), name) for number, (name, _) in enumerate(views))
    return Figure(
        id="network",
        title="Topology, links and their expected times",
        pictures=pictures,
        columns=columns(views),
        switches=(Switch("Run", options),) if several else (),
        note=_note(views, drawings),
        key=_key([view for _, view in views], colour_of),
        height_px=max(map(height_px, drawings)),
    )


def _views(content: Content) -> list[tuple[str, View]]:
    """Return each network with the names of the runs on it; a run whose file could not be read has none."""
    found: dict[int, tuple[list[str], View]] = {}
    for run in content.runs:
        if run.experiment is None:
            continue
        view = View(run.experiment, run.message_bytes)
        # Rows by themselves would be much to keep: networks of thousands of nodes are told apart by a hash of theirs.
        names, _ = found.setdefault(hash((view.message_bytes, tuple(view.rows()))), ([], view))
        names.append(run.name)
    return [(listed(names), view) for names, view in found.values()]


def _key(views: Sequence[View], colour_of: dict[str, str]) -> tuple[tuple[str, str], ...]:
    entries = []
    for name, colour in colour_of.items():
        wires = [view.wires[name] for view in views if name in view.wires]
        times = " or ".join(dict.fromkeys(duration(wire.rtt_s) for wire in wires))
        called = f"{shortened(name, 40)}: " if wires[0].named else ""
        entries.append((f"{called}{times} RTT expected", colour))
    return (*entries, ("server", SERVER_COLOUR), ("worker", WORKER_COLOUR))


def _note(views: Sequence[tuple[str, View]], drawings: Sequence[Drawing]) -> str:
    parts = ["Dots on links and marks of nodes tell more when pointed at."]
    sizes = dict.fromkeys(view.message_bytes for _, view in views if view.message_bytes)
    if sizes:
        parts.append(f"RTT: up plus down transfer of one model message ({listed([*map(bytes_in_words, sizes)])}).")
    if any(drawing.num_left_out for drawing in drawings):
        parts.append("Of each server the first children are drawn; the data count all.")
    if any(view.further for _, view in views):
        drawn = all(drawing.draws_further for drawing in drawings)
        parts.append("Dashed: links beside the tree." if drawn else "Links beside the tree are in the data only.")
    return " ".join(parts)


def _text(view: View) -> str:
    """Say how many nodes there are and what a round trip between them costs."""
    text = _counts(view.topology)
    hops = _hops(view)
    trips = [f"{time} {ends}{f' ({profile})' if profile else ''}" for profile, time, ends in hops["tree"]]
    if trips:
        text += f"; a round trip is expected to take {listed(trips)}"
    beside = [
        f"{_num(num, 'link')} {ends} ({profile}{', ' * bool(profile)}{time})"
        for (profile, time, ends), num in hops["beside"].items()
    ]
    return f"{text}; beside the tree there {_are(hops['beside'])} {listed(beside)}." if beside else f"{text}."


def _counts(topology: Topology) -> str:
    """Return how many workers there are, and where."""
    num_local = len(topology.servers) - 1
    direct = sum(topology.nodes[child].is_worker for child in topology.nodes[0].children)
    groups = len(topology.groups()) - (direct > 0)
    if not num_local:
        return f"{_num(direct, 'worker')} directly at the global server"
    text = f"in {_num(groups, 'group')} behind {_num(num_local, 'local server')}"
    text += f" on {topology.num_levels - 1} levels" if topology.num_levels > 2 else ""
    behind = f"{_num(len(topology.workers) - direct, 'worker')} {text}"
    return f"{behind} and {direct:,} directly at the global server" if direct else behind


def _num(num: int, what: str) -> str:
    return f"{num:,} {what}{'s' * (num != 1)}"


def _are(hops: Counter[tuple[str, str, str]]) -> str:
    return "is" if next(iter(hops.values())) == 1 else "are"


def _hops(view: View) -> dict[str, Counter[tuple[str, str, str]]]:
    """Return (profile, RTT, classes of the ends) and their number, the nearest to the workers first."""
    nodes = view.topology.nodes
    found: dict[str, Counter[tuple[str, str, str]]] = {"tree": Counter(), "beside": Counter()}
    ordered = sorted(view.topology.uplinks.values(), key=lambda link: -nodes[link.lower].level)
    for place, links in (("tree", ordered), ("beside", view.further)):
        for link in links:
            wire = view.wire(link)
            lower, upper = (shortened(nodes[end].class_name, 30) for end in (link.lower, link.upper))
            profile = shortened(wire.name, 30) if wire.named else ""
            found[place][profile, duration(wire.rtt_s), f"from {lower} to {upper}"] += 1
    return found
