"""A topology on the terminal: its tree, its links and what they are expected to cost, its cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from hsgd_emu.algorithm import algorithms, run_words
from hsgd_emu.check import described, open_file, open_topology
from hsgd_emu.config.kinds import require_kind
from hsgd_emu.config.load import TopologyDraft, draft_run
from hsgd_emu.config.schema import ComputeProfile, Ref
from hsgd_emu.engine.emulate import emulate
from hsgd_emu.engine.operations import Operations
from hsgd_emu.engine.record import RoundRecord
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.errors import Problem, Problems, listed
from hsgd_emu.experiment import Experiment, build_experiment
from hsgd_emu.results.wording import number
from hsgd_emu.terminal import Terminal
from hsgd_emu.timing.costs import Cost
from hsgd_emu.timing.transfers import Message, Transfer, transfer_of
from hsgd_emu.topology.routes import Hop, Routes
from hsgd_emu.topology.tree import Node, Topology
from hsgd_emu.units import NS_PER_S, to_s

"""By node: the way to the server that aggregates it."""
_MOST_ALIKE = 3
"""So many subtrees of one class are drawn below one server; the others are counted."""


def show_file(path: Path, message_bytes: int | None, sets: Sequence[str], trust_code: bool = False) -> None:
    """Print the topology of a topology or run file.

    trust_code: run the code of the run's own model and data where only that tells how large a message is.
    Raises:  ConfigError: the file is not valid, or is no topology and no run.
    """
    kind, document = open_file(path, sets)
    require_kind(document, "topology", "run")
    console = Terminal() if Terminal().is_terminal else Terminal(width=160)
    if kind == "run":
        experiment = build_experiment(draft_run(document))
        size = message_bytes or _model_bytes(experiment, trust_code)
        _View(experiment.topology, experiment.topology_draft, experiment.compute, size).print(console)
        if size is None and _depends_on_size(experiment):
            whose = listed(experiment.own_data_and_model)
            text = f"How large a message is only the code of {whose} could tell, so how long a "
            text += "round takes is not known: give --message-bytes N, or --trust-code to run it"
            console.print(Text(f"\n{text}", style="dim"))
        else:
            _print_cases(experiment, size, console)
        _print_notes(experiment.notes, console)
        return
    problems = Problems()
    draft, topology = open_topology(document, problems)
    _View(topology, draft, None, message_bytes).print(console)
    _print_notes(problems.notes, console)


def _model_bytes(experiment: Experiment, trust_code: bool) -> int | None:
    """Return the message size where a link's cost depends on it, if it is known; building the model takes seconds."""
    from hsgd_emu.run import known_message_bytes

    return known_message_bytes(experiment, trust_code) if _depends_on_size(experiment) else experiment.message_bytes


def _depends_on_size(experiment: Experiment) -> bool:
    return any(transfer.needs_bytes for transfer in experiment.network.transfers.values())


class _View:
    """What is printed of a topology; message_bytes: None where it is not known."""

    def __init__(
        self, topology: Topology, draft: TopologyDraft, compute: ComputeProfile | None, message_bytes: int | None
    ) -> None:
        self.topology, self.draft, self.compute, self.message_bytes = topology, draft, compute, message_bytes

    def print(self, console: Console) -> None:
        """Print the tree, then the further links, then where the profiles come from."""
        topology = self.topology
        console.print(Text(f"{topology.name}: {described(topology)}"))
        if self.draft.spec.description:
            console.print(Text(self.draft.spec.description.strip(), style="dim"))
        console.print()
        root = topology.nodes[0]
        tree = Tree(Text(root.name, style="bold") + Text("  global server" + self._aggregation(root)))
        self._grow(tree, root)
        console.print(tree)
        if self.draft.spec.links:
            console.print()
            for place, link in enumerate(self.draft.spec.links):
                cost = self._link_cost(self.draft.refs["links", place, "profile"])
                console.print(Text(f"further link: {link.between[0]} - {link.between[1]}  over {cost}"))
        self._print_profiles(console)

    def _grow(self, tree: Tree, server: Node) -> None:
        shown: Counter[str] = Counter()
        children = (self.topology.nodes[child] for child in server.children)
        for (name, are_workers), group in groupby(children, key=lambda child: (child.class_name, child.is_worker)):
            if are_workers:
                tree.add(self._line(list(group)))
                continue
            for child in group:
                shown[name] += 1
                if shown[name] <= _MOST_ALIKE:
                    self._grow(tree.add(self._line([child])), child)
        for name, num in shown.items():
            if num > _MOST_ALIKE:
                tree.add(Text(f"... and {num - _MOST_ALIKE} more {name}", style="dim"))

    def _line(self, alike: Sequence[Node]) -> Text:
        first = alike[0]
        name = first.name if len(alike) == 1 else f"{first.name} ... {alike[-1].name}"
        text = Text(name, style="bold")
        if len(alike) > 1:
            text += Text(f"  {len(alike)} workers")
        else:
            text += Text("  worker" if first.is_worker else "  local server" + self._aggregation(first))
        link = self.topology.uplinks.get(first.index)
        text += Text("  over " + self._link_cost(link.profile) if link else "  no uplink", style="cyan")
        if first.is_worker:
            text += Text("  " + self._step_cost(first), style="green")
        return text

    def _aggregation(self, server: Node) -> str:
        return "" if server.aggregation_s is None else f", aggregates in {cost_text(Cost(server.aggregation_s))}"

    def _step_cost(self, worker: Node) -> str:
        profile = self.compute if worker.compute is None else self.draft.computes.get(worker.compute)
        name = f"{worker.compute}: " if isinstance(worker.compute, str) else ""
        if profile is None or profile.step_s is None:
            return f"{name}step cost is given by the run file"
        return f"{name}step {cost_text(Cost(profile.step_s))}"

    def _link_cost(self, ref: Ref) -> str:
        profile = self.draft.links.get(ref)
        name = f"{ref}: " if isinstance(ref, str) else ""
        if profile is None:
            return f"{name}given by the run file"
        return name + transfer_text(transfer_of(profile), self.message_bytes)

    def _print_profiles(self, console: Console) -> None:
        named = [(n, p) for n, p in [*self.draft.links.items(), *self.draft.computes.items()] if isinstance(n, str)]
        told = [(name, p) for name, p in named if p is not None and (p.description or p.source)]
        if not told:
            return
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        for name, profile in told:
            source = f"source: {profile.source.strip()}" if profile.source else ""
            said = "\n".join(filter(None, [profile.description, source])).strip()
            table.add_row(Text(name, style="bold"), Text(said))
        console.print()
        console.print(table)


def cost_text(cost: Cost) -> str:
    """Return a cost in words: `0.004 s`, `0.12 s expected (lognormal)`."""
    if cost.is_constant:
        return f"{cost.expected_s:g} s"
    return f"{number(cost.expected_s)} s expected ({cost.kind})"


def transfer_text(transfer: Transfer, message_bytes: int | None) -> str:
    """Return what an exchange over a link costs, in words."""
    text = transfer.text.format(**{name: cost_text(cost) for name, cost in transfer.costs.items()})
    if message_bytes is None or not transfer.needs_bytes:
        return text
    expected_s = transfer.expected_ns(Message(message_bytes)) / NS_PER_S
    return f"RTT {number(expected_s)} s expected for {message_bytes:,} bytes ({text})"


def _print_cases(experiment: Experiment, message_bytes: int | None, console: Console) -> None:
    """Print how long a round and the whole of each case take when everything costs what is expected of it."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for head in ("case", "iterations a round", "rounds", "a round takes", "all iterations take"):
        table.add_column(head, justify="left" if head == "case" else "right")
    experiment = replace(experiment, network=experiment.network.at_expectation())
    ways: dict[str, Routes] = {}
    for schedule in experiment.schedules:
        ways[schedule.name] = routes = experiment.routes(schedule, message_bytes or 1)
        plan = experiment.plan(schedule, routes, message_bytes or 1, experiment.seeds[0])
        records: list[RoundRecord] = []
        part = schedule.end_of(1) if schedule.rounds_are_alike else plan.iterations
        emulate(replace(plan, iterations=part), Operations(), records.append)
        round_s, part_s = to_s(records[0].time_ns), to_s(records[-1].time_ns)
        cells = [schedule.name, schedule.rounds_in_words, f"{plan.num_rounds:,}", f"{number(round_s)} s"]
        table.add_row(*map(Text, [*cells, f"about {number(part_s * (plan.iterations // part))} s"]))
    console.print()
    console.print(table)
    console.print(Text("with every cost at its expectation; waiting for stragglers comes on top", style="dim"))
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for head in ("case", "what it computes"):
        table.add_column(head)
    for name, algorithm in algorithms(experiment).items():
        table.add_row(Text(name), Text(str(algorithm)))
    console.print(table)
    console.print(Text(f"where nothing else is said: {run_words(experiment)}", style="dim"))
    console.print()
    cases_of: dict[str, list[str]] = {}
    for schedule in experiment.schedules:
        text = "; ".join(ways_by_phase(experiment.topology, schedule, ways[schedule.name]))
        cases_of.setdefault(text, []).append(f"'{schedule.name}'")
    for text, names in cases_of.items():
        console.print(Text(f"ways of {listed(names)}: {text}"), soft_wrap=not console.is_terminal)


def ways_by_phase(topology: Topology, schedule: Schedule, routes: Routes) -> Iterator[str]:
    """Yield the ways of a case; where it has phases whose ways differ, of one after the other."""
    pairs = [schedule.pairs] if len(schedule.stages) == 1 else [tuple(one.parent.items()) for one in schedule.stages]
    texts = [ways_text(topology, {pair: routes[pair] for pair in of_stage}) for of_stage in pairs]
    if len({*texts}) == 1:
        yield texts[0]
        return
    for stage, text in zip(schedule.stages, texts, strict=True):
        yield f"{'to the end' if stage.end is None else f'until iteration {stage.end:,}'}: {text}"


def ways_text(topology: Topology, routes: Routes) -> str:
    """Return which way the nodes of each class go to the server that aggregates them, the lowest classes first.

    As in `worker -> root: direct link (far)`; where nodes of one class go different ways, each with how many do.
    """
    ways: dict[str, Counter[str]] = {}
    for node, server in sorted(routes, key=lambda pair: -topology.nodes[pair[0]].level):
        own = topology.nodes[node].class_name
        ways.setdefault(own, Counter())[_way(topology, node, routes[node, server])] += 1
    return "; ".join(
        way if len(of_class) == 1 else f"{num} x {way}" for of_class in ways.values() for way, num in of_class.items()
    )


def _way(topology: Topology, node: int, route: Sequence[Hop]) -> str:
    """Return the classes of the nodes on a route, and what kind of route it is."""
    path = [node]
    for hop in route:
        path.append(hop.link.upper if hop.forward else hop.link.lower)
    names = " -> ".join(topology.nodes[place].class_name for place in path)
    if all(hop.link is topology.uplinks.get(hop.link.lower) for hop in route):
        return f"{names}: tree"
    if len(route) > 1:
        up = all(topology.nodes[here].parent == there for here, there in pairwise(path))
        return f"{names}: {'tree, by further links' if up else 'through other nodes'}"
    profile = route[0].link.profile
    return f"{names}: direct link{f' ({profile})' if isinstance(profile, str) else ''}"


def _print_notes(notes: Sequence[Problem], console: Console) -> None:
    for note in notes:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=not console.is_terminal)
