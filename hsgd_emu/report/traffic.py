"""What a case sends over each link, out of the schedule: no simulation.

Every node exchanges one model, up and down, with the server that aggregates it, every phase of that server. Where only
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
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.wording import number
from hsgd_emu.timing.transfers import Message
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
    ends: tuple[str, str] = ("", "")
    """Names in the topology file, which may stand for several nodes, of its lower and upper end."""

    @property
    def num_messages(self) -> float:
        """Messages in both directions."""
        return self.num_up + self.num_down


Sender = tuple[int, int]
"""A stage, by its number, and a server that aggregates in it."""
Sent = dict[Link, dict[Sender, list[Fraction]]]
"""By link: messages towards its upper and its lower end in one phase of each server."""


@dataclass(frozen=True)
class Traffic:
    """What a case sends."""

    schedule: Schedule
    message: Message
    network: Network = field(repr=False)
    num_messages: Mapping[Sender, Fraction]
    """In one phase of each server over all links, a message that crosses two counts twice. A whole number, the same in
    every phase, unless only part of the server's workers take part and their routes have unlike numbers of links: then
    the expectation."""
    sent: Sent = field(repr=False)

    def bytes_until(self, iteration: float) -> int:
        """Return the bytes sent over all links until the global aggregation at `iteration`, which may be a mean, is
        received everywhere."""
        until = self.schedule.phases_until(iteration)
        num = sum(num * until[sender] for sender, num in self.num_messages.items())
        return round(num * self.message.num_bytes)

    def links_until(self, iteration: float) -> tuple[LinkTraffic, ...]:
        """Return what links that carry something carry until an iteration, in topology order."""
        return tuple(_links(self.network, self.message, self.sent, self.schedule.phases_until(iteration)))


def traffic_of(experiment: Experiment, schedule: Schedule, message_bytes: int) -> Traffic:
    """Return the traffic of one case."""
    nodes = experiment.topology.nodes
    routes = experiment.routes(schedule, message_bytes)
    sent: defaultdict[Link, dict[Sender, list[Fraction]]] = defaultdict(dict)
    num_messages: dict[Sender, Fraction] = {}
    all_children = (
        ((number, server), children, stage.participation)
        for number, stage in enumerate(schedule.stages)
        for server, children in stage.children.items()
    )
    for sender, children, participation in all_children:
        share = _share(participation, sum(nodes[child].is_worker for child in children))
        num_messages[sender] = Fraction(0)
        for child in children:
            uploads, route = share if nodes[child].is_worker else Fraction(1), routes[child, sender[1]]
            num_messages[sender] += len(route) * (uploads + 1)
            for hop in route:
                # Travelled backwards, uploads go to the lower end.
                messages = sent[hop.link].setdefault(sender, [Fraction(0), Fraction(0)])
                messages[0] += uploads if hop.forward else 1
                messages[1] += 1 if hop.forward else uploads
    return Traffic(schedule, Message(message_bytes), experiment.network, num_messages, sent)


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


def _links(
    network: Network, message: Message, sent: Sent, num_phases: Mapping[Sender, Fraction]
) -> Iterator[LinkTraffic]:
    nodes = network.topology.nodes
    expected_s = {ref: transfer.expected_s(message) for ref, transfer in network.transfers.items()}
    for link in network.topology.links:
        if link not in sent:
            continue
        up_s, down_s = expected_s[link.profile]
        by_server = sent[link].items()
        num_up, num_down = (float(sum(one[i] * num_phases[server] for server, one in by_server)) for i in (0, 1))
        ends = (nodes[link.lower].class_name, nodes[link.upper].class_name)
        name = profile_name(link.profile, network.transfers[link.profile].profile, up_s + down_s)
        yield LinkTraffic(link.name, name, num_up, num_down, num_up * up_s + num_down * down_s, ends)
