"""What one global period of a case sends over each link, out of the schedule: no simulation.

Every node exchanges one model, up and down, with the server that aggregates it, every period of that server. Where only
part of a server's workers take part, the others upload nothing but receive every model; who they are is drawn, so that
the messages of a single link are then an expectation, while those of a server's workers together are not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from hsgd_emu.config.schema import LinkProfile, Ref
from hsgd_emu.engine.network import Network
from hsgd_emu.engine.schedule import Schedule
from hsgd_emu.experiment import Experiment
from hsgd_emu.results.wording import number
from hsgd_emu.timing.transfers import Message
from hsgd_emu.topology.routes import Route
from hsgd_emu.topology.tree import Link

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@dataclass(frozen=True)
class LinkTraffic:
    """What crosses one link in one global period.

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


@dataclass(frozen=True)
class Traffic:
    """What one global period of a case sends."""

    schedule: Schedule
    message_bytes: int
    links: tuple[LinkTraffic, ...]
    """Those that carry something, in topology order."""
    num_messages: Fraction
    """Over all links, a message that crosses two counts twice. A whole number, the same in every period, unless only
    part of a server's workers take part and their routes have unlike numbers of links: then the expectation."""

    @property
    def period_bytes(self) -> int:
        """Bytes over all links in one global period; a message that crosses two links counts twice."""
        return self.bytes_until(self.schedule.end_of(1))

    def bytes_until(self, iteration: float) -> int:
        """Return the bytes sent over all links until the global aggregation at `iteration` is received everywhere."""
        return round(self.num_messages * self.message_bytes * self.num_periods(iteration))

    def num_periods(self, iteration: float) -> Fraction:
        """Return how many global periods end until an iteration, which may be a mean."""
        return Fraction(iteration) / self.schedule.end_of(1)


@dataclass
class _Messages:
    """Those towards the upper and the lower end of a link."""

    up: Fraction | int = 0
    down: Fraction | int = 0


def traffic_of(experiment: Experiment, schedule: Schedule, message_bytes: int) -> Traffic:
    """Return the traffic of one case."""
    nodes = experiment.topology.nodes
    routes = experiment.routes(schedule, message_bytes)
    sent: defaultdict[Link, _Messages] = defaultdict(_Messages)
    num_messages = Fraction(0)
    for server, children in schedule.children.items():
        num_phases = schedule.num_phases(server, schedule.end_of(1))
        num_workers = sum(nodes[child].is_worker for child in children)
        of_workers = num_phases * _share(schedule.participation, num_workers)
        num_hops = {True: 0, False: 0}
        for child in children:
            is_worker = nodes[child].is_worker
            num_hops[is_worker] += len(routes[child])
            _send(routes[child], of_workers if is_worker else num_phases, num_phases, sent)
        num_messages += num_hops[True] * (of_workers + num_phases) + num_hops[False] * 2 * num_phases
    links = tuple(_links(experiment.network, Message(message_bytes), sent))
    return Traffic(schedule, message_bytes, links, num_messages)


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
    """Return which part of a server's workers uploads in a period."""
    if participation >= 1 or not num_workers:
        return Fraction(1)
    return Fraction(max(1, round(participation * num_workers)), num_workers)


def _send(route: Route, uploads: Fraction | int, downloads: int, sent: Mapping[Link, _Messages]) -> None:
    """Add a node's messages to each link of its route; travelled backwards, uploads go to its lower end."""
    for hop in route:
        messages = sent[hop.link]
        messages.up += uploads if hop.forward else downloads
        messages.down += downloads if hop.forward else uploads


def _links(network: Network, message: Message, sent: Mapping[Link, _Messages]) -> Iterator[LinkTraffic]:
    nodes = network.topology.nodes
    expected_s = {ref: transfer.expected_s(message) for ref, transfer in network.transfers.items()}
    for link in network.topology.links:
        if link not in sent:
            continue
        up_s, down_s = expected_s[link.profile]
        num_up, num_down = float(sent[link].up), float(sent[link].down)
        ends = (nodes[link.lower].class_name, nodes[link.upper].class_name)
        name = profile_name(link.profile, network.transfers[link.profile].profile, up_s + down_s)
        yield LinkTraffic(link.name, name, num_up, num_down, num_up * up_s + num_down * down_s, ends)
