"""What a case sends over each link, out of the schedule: no simulation.

Every node exchanges one model, up and down, with the server that aggregates it, every phase of that server; hubs that
mix send theirs to their neighbours. Where only
part of a server's workers take part, the others upload nothing but receive every model; who they are is drawn, so that
the messages of a single link are then an expectation, while those of a server's workers together are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from hsgd_emu.config.schema import LinkProfile, Ref
from hsgd_emu.engine.network import Network
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.wording import number
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.routes import Route
from hsgd_emu.topology.tree import Link

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@dataclass(frozen=True)
class LinkTraffic:
    """What crosses one link until an iteration.

    num_up, num_down: messages towards `upper` and towards `lower`; expected, and so perhaps not whole, where only part
    of the workers take part. busy_s: expected seconds during which a message is on its way over the link, messages
    counted one after another: what is under way at once counts as often as it is.
    """

    link: str
    profile: str
    num_up: float
    num_down: float
    busy_s: float
    num_bytes: float
    ends: tuple[str, str] = ("", "")
    """Names in the topology file, which may stand for several nodes, of its lower and upper end."""

    @property
    def num_messages(self) -> float:
        """Messages in both directions."""
        return self.num_up + self.num_down


Sender = tuple[int, int]
"""A stage, by its number, and a server that aggregates in it."""
Sent = dict[Link, dict[tuple[Sender, Message], list[Fraction]]]
"""By link: messages of one size towards its upper and its lower end in one phase of each server."""


@dataclass(frozen=True)
class Traffic:
    """What a case sends."""

    schedule: Schedule
    network: Network = field(repr=False)
    num_bytes: Mapping[Sender, Fraction]
    """In one phase of each server over all links, a message that crosses two counts twice. A whole number, the same in
    every phase, unless only part of the server's workers take part and they are not alike: then the expectation."""
    sent: Sent = field(repr=False)

    def bytes_until(self, iteration: float) -> int:
        """Return the bytes sent over all links until the global aggregation at `iteration`, which may be a mean, is
        received everywhere."""
        until = self.schedule.phases_until(iteration)
        return round(sum(num * until[sender] for sender, num in self.num_bytes.items()))

    def links_until(self, iteration: float) -> tuple[LinkTraffic, ...]:
        """Return what links that carry something carry until an iteration, in topology order."""
        return tuple(_links(self.network, self.sent, self.schedule.phases_until(iteration)))


def traffic_of(experiment: Experiment, schedule: Schedule, message_bytes: int) -> Traffic:
    """Return the traffic of one case."""
    plan = experiment.plan(schedule, experiment.routes(schedule, message_bytes), message_bytes, experiment.seeds[0])
    sent: Sent = {}
    num_bytes: defaultdict[Sender, Fraction] = defaultdict(Fraction)
    for sender, route, message, num, is_upload in _messages(plan):
        num_bytes[sender] += len(route) * num * message.num_bytes
        for hop in route:
            # Travelled backwards, uploads go to the lower end.
            crossing = sent.setdefault(hop.link, {}).setdefault((sender, message), [Fraction(0), Fraction(0)])
            crossing[0 if hop.forward == is_upload else 1] += num
    return Traffic(schedule, experiment.network, num_bytes, sent)


def _messages(plan: Plan) -> Iterator[tuple[Sender, Route, Message, Fraction, bool]]:
    """Yield of each message of a phase: of whom, its way, itself, how often it is sent, and whether it goes up."""
    nodes, graph = plan.network.topology.nodes, plan.schedule.graph
    for place, stage in enumerate(plan.schedule.stages):
        for server, children in stage.children.items():
            share = _share(stage.participation, sum(nodes[child].is_worker for child in children))
            for child in () if graph is not None and server == 0 else children:
                uploads, route = share if nodes[child].is_worker else Fraction(1), plan.routes[child, server]
                up, down = plan.messages[child, server]
                yield (place, server), route, up, uploads, True
                yield (place, server), route, down, Fraction(1), False
    for pair in () if graph is None else graph.pairs():
        yield (0, 0), plan.routes[pair], plan.messages[pair].up, Fraction(1), True


def profile_name(ref: Ref, profile: LinkProfile, expected_rtt_s: float) -> str:
    """Return what to call a link's profile: one that is written inline may have no name but what it costs."""
    return ref if isinstance(ref, str) else profile.name or f"RTT {number(expected_rtt_s)} s"


def bytes_in_words(num: float) -> str:
    """Return a number of bytes in decimal units: 512 bytes, 4.20 kB, 480 MB, 1.25 GB, 12,300 GB."""
    for unit, size in _UNITS:
        # What three digits would round up to 1,000 is one of the next unit.
        if num >= 0.9995 * size:
            return f"{number(num / size, 3)} {unit}"
    return f"{num:.0f} byte{'s' * (round(num) != 1)}"


def _share(participation: float, num_workers: int) -> Fraction:
    """Return which part of a server's workers uploads in a phase."""
    if participation >= 1 or not num_workers:
        return Fraction(1)
    return Fraction(max(1, round(participation * num_workers)), num_workers)


def _links(network: Network, sent: Sent, num_phases: Mapping[Sender, Fraction]) -> Iterator[LinkTraffic]:
    nodes = network.topology.nodes
    for link in network.topology.links:
        if link not in sent:
            continue
        transfer, num_up, num_down, num_bytes, busy_s = network.transfers[link.profile], 0.0, 0.0, 0.0, 0.0
        for message in dict.fromkeys(message for _, message in sent[link]):
            alike = [(sender, num) for (sender, one), num in sent[link].items() if one == message]
            up, down = (float(sum(num[way] * num_phases[sender] for sender, num in alike)) for way in (0, 1))
            up_s, down_s = transfer.expected_s(message)
            num_up, num_down, num_bytes = num_up + up, num_down + down, num_bytes + (up + down) * message.num_bytes
            busy_s += up * up_s + down * down_s
        ends = (nodes[link.lower].class_name, nodes[link.upper].class_name)
        name = profile_name(link.profile, transfer.profile, up_s + down_s)
        yield LinkTraffic(link.name, name, num_up, num_down, busy_s, num_bytes, ends)
