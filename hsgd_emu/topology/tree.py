"""A topology file's specification -> a validated tree of named nodes in depth-first order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from hsgd_emu.config.load import TopologyDraft
from hsgd_emu.config.reader import Path_
from hsgd_emu.config.schema import (
    CostValue,
    LevelSpec,
    NodeSpec,
    Ref,
    RootSpec,
    Routing,
    TopologySpec,
)
from hsgd_emu.config.validate import has_unknown_key
from hsgd_emu.errors import Problem, listed, nearest

Item = TypeVar("Item")
MAX_NODES = 200_000
MAX_LINKS = 2_000_000


@dataclass(frozen=True)
class Node:
    """A worker (leaf) or server; `index` is its place in depth-first order, the root is 0."""

    index: int
    name: str
    class_name: str
    """The name in the file, which may stand for several nodes."""
    parent: int | None
    level: int
    children: tuple[int, ...]
    compute: Ref | None
    aggregation_s: CostValue | None
    path: Path_
    """Where the node stands in the file."""

    @property
    def is_worker(self) -> bool:
        return not self.children


@dataclass(frozen=True)
class Link:
    """A link between two nodes; `up` costs are paid from `lower` to `upper`."""

    name: str
    lower: int
    upper: int
    profile: Ref


@dataclass(frozen=True)
class Topology:
    """Nodes in depth-first order, the tree's own links first, then the further ones."""

    name: str
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    index: dict[str, int] = field(repr=False)
    classes: dict[str, tuple[int, ...]] = field(repr=False)
    routing: Routing = "tree"

    @cached_property
    def workers(self) -> tuple[int, ...]:
        """Node indices of the workers, depth first."""
        return tuple(node.index for node in self.nodes if node.is_worker)

    @cached_property
    def servers(self) -> tuple[int, ...]:
        """Node indices of the servers, depth first; the global server is the first."""
        return tuple(node.index for node in self.nodes if not node.is_worker)

    @cached_property
    def uplinks(self) -> dict[int, Link]:
        """By node the first link to its parent: the tree's own come first; absent where another way leads there."""
        found: dict[int, Link] = {}
        for link in self.links:
            if self.nodes[link.lower].parent == link.upper:
                found.setdefault(link.lower, link)
        return found

    @property
    def num_levels(self) -> int:
        """M: the number of levels below the root."""
        return max(node.level for node in self.nodes)

    def groups(self) -> list[list[int]]:
        """Return the worker numbers (0..n-1, depth first) below each direct parent, in depth-first order."""
        number = {worker: place for place, worker in enumerate(self.workers)}
        below: dict[int, list[int]] = {}
        for worker in self.workers:
            below.setdefault(self.nodes[worker].parent or 0, []).append(number[worker])
        return [below[server] for server in self.servers if server in below]

    def named(self, name: str) -> tuple[int, ...]:
        """Return the nodes that a name stands for: one node, or every node of a class; empty if none."""
        if name in self.index:
            return (self.index[name],)
        return self.classes.get(name, ())

    def by_node(self, given: Mapping[str, Item]) -> dict[int, Item]:
        """Return by node, in node order, what is given by names; a node's own name beats the name of its class."""
        of_classes = [(node, value) for name, value in given.items() for node in self.classes.get(name, ())]
        of_nodes = [(self.index[name], value) for name, value in given.items() if name in self.index]
        return dict(sorted((dict(of_classes) | dict(of_nodes)).items()))


def build_topology(draft: TopologyDraft, problems: list[Problem]) -> Topology | None:
    """Return the tree that a topology file describes, or None after adding every problem found."""
    spec, source = draft.spec, draft.source
    found: list[tuple[Path_, str]] = []
    roots = None if _is_misspelt(draft, problems) else _root(spec, found)
    if roots is not None and _num_nodes(roots) > MAX_NODES:
        found.append(((), f"{_num_nodes(roots)} nodes; at most {MAX_NODES} are supported"))
        roots = None
    topology = None
    if roots is not None:
        nodes, uplinks = _expand(draft, roots, found)
        topology = _named_topology(draft, nodes, uplinks, found)
    problems += [source.problem(path, text) for path, text in found]
    return None if found else topology


def _is_misspelt(draft: TopologyDraft, problems: list[Problem]) -> bool:
    """Return whether an unknown key, already reported, stands where `levels` or `children` is missing."""
    root = draft.spec.root
    if draft.spec.levels is not None or (root is not None and root.children is not None):
        return False
    places = [draft.source] if root is None else [draft.source, draft.source.at("root")]
    return any(has_unknown_key(place, problems) for place in places)


@dataclass(frozen=True)
class _Item:
    """One entry of the file, whichever form it was written in."""

    spec: NodeSpec | LevelSpec | RootSpec
    path: Path_
    children: tuple[_Item, ...]

    @property
    def count(self) -> int:
        return getattr(self.spec, "count", 1)


def _root(spec: TopologySpec, found: list[tuple[Path_, str]]) -> _Item | None:
    explicit = spec.root is not None and spec.root.children is not None
    if explicit == (spec.levels is not None):
        what = "both root.children and levels" if explicit else "neither levels nor root.children"
        found.append(((), f"gives {what}; give one of them"))
        return None
    root = spec.root or RootSpec()
    if explicit:
        return _Item(root, ("root",), _items(root.children or (), ("root", "children")))
    below: tuple[_Item, ...] = ()
    for number, level in reversed(list(enumerate(spec.levels or ()))):
        below = (_Item(level, ("levels", number), below),)
    return _Item(root, ("root",), below)


def _items(specs: Sequence[NodeSpec], path: Path_) -> tuple[_Item, ...]:
    return tuple(
        _Item(spec, (*path, number), _items(spec.children or (), (*path, number, "children")))
        for number, spec in enumerate(specs)
    )


def _num_nodes(item: _Item) -> int:
    return item.count * (1 + sum(map(_num_nodes, item.children)))


@dataclass
class _Raw:
    """A node before it has its final name."""

    item: _Item
    parent: int | None
    level: int
    children: list[int]


def _expand(draft: TopologyDraft, root: _Item, found: list[tuple[Path_, str]]) -> tuple[list[_Raw], dict[int, Ref]]:
    """Return all nodes depth first, and the uplink profile of each that has one."""
    for item in _walk(root):
        spec, is_server = item.spec, bool(item.children)
        if is_server and getattr(spec, "compute", None) is not None:
            found.append(((*item.path, "compute"), f"'{spec.name}' is a server; only workers compute"))
        if not is_server and spec.aggregation_s is not None:
            found.append(((*item.path, "aggregation_s"), f"'{spec.name}' is a worker; only servers aggregate"))
    nodes: list[_Raw] = []
    uplinks: dict[int, Ref] = {}
    stack: list[tuple[_Item, int | None, int]] = [(root, None, 0)]
    while stack:
        item, parent, level = stack.pop()
        index = len(nodes)
        nodes.append(_Raw(item, parent, level, []))
        if parent is not None:
            nodes[parent].children.append(index)
        uplink = draft.refs.get((*item.path, "uplink"))
        if uplink is not None:
            uplinks[index] = uplink
        for child in reversed(item.children):
            stack += [(child, index, level + 1)] * child.count
    return nodes, uplinks


def _walk(item: _Item) -> Iterator[_Item]:
    yield item
    for child in item.children:
        yield from _walk(child)


def _named_topology(
    draft: TopologyDraft,
    raw: list[_Raw],
    uplinks: dict[int, Ref],
    found: list[tuple[Path_, str]],
) -> Topology:
    spec = draft.spec
    totals = Counter(node.item.spec.name for node in raw)
    numbers: Counter[str] = Counter()
    index: dict[str, int] = {}
    classes: dict[str, list[int]] = {}
    names = []
    for place, node in enumerate(raw):
        base = node.item.spec.name
        name = base if totals[base] == 1 else f"{base}-{numbers[base]}"
        numbers[base] += 1
        if place > 0 and base == raw[0].item.spec.name:
            text = f"'{base}' is the name of the global server; rename one of them"
            found.append(((*node.item.path, "name"), text))
        elif name in index:
            text = f"the name '{name}' also belongs to another node; rename one of them"
            found.append(((*node.item.path, "name"), text))
        index[name] = place
        names.append(name)
        classes.setdefault(base, []).append(place)
    nodes = tuple(
        Node(
            place,
            names[place],
            node.item.spec.name,
            node.parent,
            node.level,
            tuple(node.children),
            draft.refs.get((*node.item.path, "compute")),
            draft.aggregations.get((*node.item.path, "aggregation_s"), node.item.spec.aggregation_s),
            node.item.path,
        )
        for place, node in enumerate(raw)
    )
    links = [_link(nodes, place, nodes[place].parent or 0, profile) for place, profile in uplinks.items()]
    tree = Topology(spec.name or "unnamed", nodes, tuple(links), index, {key: tuple(v) for key, v in classes.items()})
    further = tuple(_further_links(draft, tree, found))
    return Topology(tree.name, nodes, tree.links + further, index, tree.classes, spec.routing)


def _link(nodes: Sequence[Node], lower: int, upper: int, profile: Ref) -> Link:
    return Link(f"{nodes[lower].name}--{nodes[upper].name}", lower, upper, profile)


def _further_links(draft: TopologyDraft, tree: Topology, found: list[tuple[Path_, str]]) -> Iterator[Link]:
    taken: Counter[str] = Counter(link.name for link in tree.links)
    for number, link in enumerate(draft.spec.links):
        profile = draft.refs["links", number, "profile"]
        ends = [tree.named(name) for name in link.between]
        for place, (name, nodes) in enumerate(zip(link.between, ends, strict=True)):
            if not nodes:
                known = list(dict.fromkeys([*tree.classes, *tree.index]))
                hint = nearest(name, known) or f"; known are {listed(known)}"
                found.append((("links", number, "between", place), f"no node or class '{name}'{hint}"))
        if len(ends[0]) * len(ends[1]) > MAX_LINKS:
            found.append((("links", number), f"stands for more than {MAX_LINKS} links"))
            continue
        pairs = [(a, b) for a in ends[0] for b in ends[1] if a != b]
        if ends[0] == ends[1]:
            pairs = [(a, b) for a, b in pairs if a < b]
        if all(ends) and not pairs:
            found.append((("links", number, "between"), f"links '{link.between[0]}' with itself; name two nodes"))
        for a, b in pairs:
            made = _link(tree.nodes, a, b, profile)
            # A second link between the same two nodes needs a name, and so random draws, of its own.
            repeat = taken[made.name]
            taken[made.name] += 1
            yield made if not repeat else Link(f"{made.name}#{repeat + 1}", a, b, profile)
