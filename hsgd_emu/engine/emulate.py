"""The SimPy engine: workers and servers as processes on a clock of integer nanoseconds.

DESIGN section 4 is the contract. The processes are thin: whom a server waits for and what it averages is decided by
its gate, what is learned by the log of operations. Ties resolve by (time, node order). Not modelled: links shared
between transfers, workers that fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from heapq import heappush
from typing import Any

import simpy
from simpy.events import Event

from hsgd_emu.engine.gates import Answer, Gate, Ticket
from hsgd_emu.engine.hubs import Mixing, Result
from hsgd_emu.engine.network import Exchange
from hsgd_emu.engine.operations import NOTHING, Operations, Version
from hsgd_emu.engine.plan import Plan
from hsgd_emu.engine.record import Barrier, Keep, Recorder, RoundRecord, Split
from hsgd_emu.engine.schedule import Phase
from hsgd_emu.metrics import Metrics

Process = Generator[Event, Any, None]
IsEnough = Callable[[int, Metrics], bool]


class Clock(simpy.Environment):
    """SimPy's environment; its time stays an integer as long as every delay is one."""

    _now: int


class Delay(Event):
    """A timeout whose ties resolve by node order instead of by the order of calls."""

    def __init__(self, env: simpy.Environment, delay_ns: int, node: int) -> None:
        # Set here, as SimPy's own Timeout does, for there is one of these per event.
        self.env, self.callbacks, self._ok, self._value = env, [], True, None
        # Priorities 0 and 1 are SimPy's own: what follows from an event at once comes before the next node's. What
        # `Environment.schedule` does, without its call; its type of a priority is an int by another name.
        heappush(env._queue, (env._now + delay_ns, node + 2, next(env._eid), self))  # type: ignore[misc]


class Emulation:
    """One trial on the clock: drives the gates, asks for operations and reports every global aggregation.

    on_round is called once per global aggregation, when the last worker holds the new global model;
    on_aggregated when the global server has it, before any worker goes on. is_enough is asked at each evaluated
    global aggregation, in the same moment: where it is, the trial is one of so many iterations from then on.
    """

    def __init__(
        self,
        plan: Plan,
        operations: Operations,
        on_round: Callable[[RoundRecord], None],
        keep: Keep = "none",
        on_aggregated: Callable[[int], None] | None = None,
        is_enough: IsEnough | None = None,
    ) -> None:
        self.env = Clock()
        self.plan, self.operations, self.schedule = plan, operations, plan.schedule
        self.on_round, self.on_aggregated, self.is_enough = on_round, on_aggregated, is_enough
        self.draws, self._coded = plan.draws(), plan.sends.coded
        self.gates = plan.gates()
        self.recorder = Recorder(keep)
        self.split: dict[int, Split] = dict.fromkeys([*plan.workers, *self.schedule.servers], Split())
        self._closed: dict[int, deque[Ticket]] = {server: deque() for server in self.schedule.servers}
        self._idle: dict[int, Event] = {}
        """By server that waits for a ticket to be closed."""
        self._still_to_hold: dict[int, int] = {}
        self._mixing: dict[int, Mixing] = {}
        """By round, those that some hub has not mixed in yet."""
        self._over = self.env.event()
        """The last round is over; a hub that is ahead of it, in a trial that ends early, is left where it is."""
        self._processes: list[simpy.Process] = []
        self._to_begin: dict[tuple[int, int], tuple[Ticket | None, int]] = {}
        """By stage and server: the ticket that its children begin with, and how many have still to."""

    def run(self) -> str:
        """Run the trial to its end and return the hash of all its events (SHA-256, hex)."""
        start = self.operations.start()
        self._begin(self._serving(0, start) + [self._work(worker, start) for worker in self.plan.workers])
        del start
        try:
            self.env.run(until=None if self.schedule.graph is None else self._over)
        except Exception as error:
            # SimPy raises a copy made from the arguments; the process has what really happened.
            failed: list[Any] = [process.value for process in self._processes if process.triggered and not process.ok]
            raise (failed[0] if failed else error) from None
        is_done = self._over.triggered or all(process.triggered for process in self._processes)
        assert is_done, "somebody waits for a message that never comes"
        return self.recorder.digest()

    def _begin(self, lives: Sequence[Process]) -> None:
        self._processes += map(self.env.process, lives)

    def _serving(self, stage: int, model: Version) -> list[Process]:
        servers = [server for server in self.gates[stage] if server or self.schedule.graph is None]
        return [self._serve(stage, server, model) for server in servers]

    def _work(self, worker: int, model: Version) -> Process:
        """A worker's life: steps, upload, wait, download, again."""
        stage, is_coded = 0, (worker, "up") in self._coded
        known = model if is_coded else NOTHING  # what both ends know, which nobody else needs as long
        gate, ticket = self._first(stage, worker)
        while ticket is not None:
            phase = ticket.phase
            # Drawn whether it takes part or not, so that participation leaves the other draws as they were.
            num_steps = phase.end - phase.begin
            steps_ns = self.draws.steps_ns(worker, num_steps)
            exchange = self.draws.exchange(worker, phase.server)
            if worker not in ticket.sits_out:
                start_ns = self.env._now
                yield Delay(self.env, steps_ns, worker)
                self.split[worker] = self.split[worker].computed(steps_ns)
                self.recorder.activity(worker, "compute", start_ns, start_ns + steps_ns, phase)
                model = self.operations.steps(worker, model, phase.begin, num_steps)
                if is_coded:
                    model = self.operations.compress(worker, "up", model, known)
                yield from self._upload(gate, ticket, worker, model, exchange)
            model = known = NOTHING  # nobody needs it longer than the server does
            yield from self._download(worker, ticket, exchange)
            model = ticket.answer.version
            known = model if is_coded else NOTHING
            if ticket.answer.record is not None:
                self._holds_global_model(worker, ticket.answer.record)
            ticket = ticket.after or self._opened(gate, gate.after(ticket))  # mostly opened by another child
            if ticket is None and self._goes_on(stage + 1):
                stage += 1
                gate, ticket = self._first(stage, worker)

    def _serve(self, stage: int, server: int, model: Version) -> Process:
        """A server's life in a stage: gather, aggregate, pass on (from above where its phase there ends too), again."""
        gate, done = self.gates[stage][server], self.schedule.stages[stage].begin
        higher, above = self._first(stage, server) if server else (gate, None)
        up_is_coded, down_is_coded = ((server, way) in self._coded for way in ("up", "down"))
        known = model if up_is_coded else NOTHING
        while done < gate.end:
            ticket = yield from self._next_closed(server)
            done = ticket.phase.end
            sent = model if down_is_coded else NOTHING
            model, record = (yield from self._aggregate(gate, ticket, model)), None
            if server == 0:
                record = self._global_aggregation(self._record(ticket.phase), model)
            elif above is not None and done == above.phase.end and server in self.plan.mixing:
                model, record = yield from self._mix(server, above.phase, model)
                above = self._opened(higher, higher.after(above))
            elif above is not None and done == above.phase.end:
                exchange = self.draws.exchange(server, above.phase.server)
                if up_is_coded:
                    model = self.operations.compress(server, "up", model, known)
                yield from self._upload(higher, above, server, model, exchange)
                model = known = NOTHING
                yield from self._download(server, above, exchange)
                model, record = above.answer.version, above.answer.record
                known = model if up_is_coded else NOTHING
                above = self._opened(higher, higher.after(above))
            if down_is_coded:
                model, sent = self.operations.compress(server, "down", model, sent), NOTHING
            ticket.answer = Answer(model, self.env._now, self.split[server], record)
            ticket.signal.succeed()
            del record
        if server == 0 and self._goes_on(stage + 1):
            self._begin(self._serving(stage + 1, model))

    def _goes_on(self, stage: int) -> bool:
        """Return whether there is a stage of this number, and the trial has not come to its end before."""
        return stage < len(self.gates) and self.gates[stage][0].end > self.schedule.stages[stage].begin

    def _first(self, stage: int, node: int) -> tuple[Gate, Ticket | None]:
        """Return the gate of the server that aggregates a node in a stage, and the ticket that it begins with."""
        server = self.schedule.stages[stage].parent[node]
        gate, children = self.gates[stage][server], self.schedule.stages[stage].children[server]
        waiting = self._to_begin.pop((stage, server), None)
        ticket, num = (self._opened(gate, gate.first()), len(children)) if waiting is None else waiting
        if num > 1:  # kept no longer than somebody will ask: all that come after hang on it
            self._to_begin[stage, server] = ticket, num - 1
        return gate, ticket

    def _opened(self, gate: Gate, ticket: Ticket | None) -> Ticket | None:
        """Return a ticket, made ready for processes where it is new."""
        if ticket is not None and ticket.signal is None:
            ticket.signal = self.env.event()
            if ticket.wake_ns is not None:
                self.env.process(self._wake(gate, ticket, ticket.wake_ns))
        return ticket

    def _wake(self, gate: Gate, ticket: Ticket, at_ns: int) -> Process:
        # After all that arrives in the same moment; at once where the first holder has come too late.
        yield Delay(self.env, max(0, at_ns - self.env._now), len(self.plan.network.topology.nodes))
        if gate.wake(ticket, self.env._now):
            self._close(ticket)

    def _close(self, ticket: Ticket) -> None:
        """Let the server take a closed ticket as soon as it is free."""
        server = ticket.phase.server
        self._closed[server].append(ticket)
        if server in self._idle:
            self._idle.pop(server).succeed()

    def _next_closed(self, server: int) -> Generator[Event, Any, Ticket]:
        closed = self._closed[server]
        if not closed:
            self._idle[server] = self.env.event()
            yield self._idle[server]
        return closed.popleft()

    def _upload(self, gate: Gate, ticket: Ticket, child: int, model: Version, exchange: Exchange) -> Process:
        start_ns, up_ns = self.env._now, exchange.up_ns
        yield Delay(self.env, up_ns, child)
        self.split[child] = self.split[child].communicated(up_ns)
        phase, end_ns = ticket.phase, start_ns + up_ns
        self.recorder.activity(child, "upload", start_ns, end_ns, phase, exchange.up_bytes, phase.server)
        self.recorder.uploaded[phase.round] += exchange.up_bytes
        if gate.arrive(ticket, child, model, exchange.costliest, end_ns):
            self._close(ticket)

    def _download(self, child: int, ticket: Ticket, exchange: Exchange) -> Process:
        """Wait until the server sends down, then receive."""
        start_ns, split, phase = self.env._now, self.split[child], ticket.phase
        yield ticket.signal
        _, sent_ns, sent_split, _ = ticket.answer
        # A worker that sat out may still have been receiving the model before: it goes on from its own time.
        if sent_ns >= start_ns:
            if sent_ns > start_ns:
                self.recorder.activity(child, "wait", start_ns, sent_ns, phase, peer=phase.server)
            start_ns, split = sent_ns, sent_split
        down_ns = exchange.down_ns
        yield Delay(self.env, down_ns, child)
        self.split[child] = split.communicated(down_ns)
        end_ns = start_ns + down_ns
        self.recorder.activity(child, "download", start_ns, end_ns, phase, exchange.down_bytes, phase.server)
        self.recorder.downloaded[phase.round] += exchange.down_bytes

    def _aggregate(self, gate: Gate, ticket: Ticket, begun: Version) -> Generator[Event, Any, Version]:
        phase, start_ns = ticket.phase, self.env._now
        server = phase.server
        if ticket.first_ns < start_ns:
            self.recorder.activity(server, "wait", ticket.first_ns, start_ns, phase, peer=ticket.blamed)
        barrier = Barrier(server, phase.end, start_ns, ticket.blamed, ticket.link, ticket.slack_ns)
        self.recorder.barrier(barrier, phase)
        cost_ns = self.draws.aggregation_ns(server)
        if cost_ns:
            yield Delay(self.env, cost_ns, server)
        self.split[server] = self.split[ticket.blamed].aggregated(cost_ns)
        self.recorder.activity(server, "aggregate", start_ns, start_ns + cost_ns, phase, peer=ticket.blamed)
        return self.operations.combine(server, begun, *gate.combination(ticket), gate.held(ticket))

    def _mix(self, hub: int, phase: Phase, model: Version) -> Generator[Event, Any, tuple[Version, RoundRecord]]:
        """Send a hub's result to its neighbours, wait for theirs, and return the mean of them that it takes."""
        mixing = self._mixing.get(phase.round)
        if mixing is None:
            mixing = self._mixing[phase.round] = Mixing(self.plan, self._record(phase), phase, self.env.event)
        result = Result(self.env._now, hub, model, self.split[hub], "")
        mixing.arrive(hub, result)
        for other in mixing.neighbours[hub]:
            self.env.process(self._send(result, other, mixing))
        del result
        model = NOTHING
        start_ns = self.env._now
        yield mixing.complete[hub]
        last, barrier = mixing.last(hub)
        if last.hub != hub:
            self.recorder.activity(hub, "wait", start_ns, self.env._now, phase, peer=last.hub)
            self.recorder.barrier(barrier, phase)
        self.split[hub] = last.split
        mixed = self.operations.combine(hub, NOTHING, *mixing.taken(hub))
        if not mixing.still_to_mix:
            del self._mixing[phase.round]
            self._global_aggregation(mixing.record, self.operations.combine(0, NOTHING, *mixing.combination()))
        return mixed, mixing.record

    def _send(self, result: Result, other: int, mixing: Mixing) -> Process:
        """Send a hub's result to a neighbour."""
        start_ns, hub, model, split, _ = result
        exchange, phase = self.draws.exchange(hub, other), mixing.phase
        yield Delay(self.env, exchange.up_ns, hub)
        end_ns = start_ns + exchange.up_ns
        self.recorder.activity(hub, "upload", start_ns, end_ns, phase, exchange.up_bytes, other)
        self.recorder.uploaded[phase.round] += exchange.up_bytes
        mixing.arrive(other, Result(end_ns, hub, model, split.communicated(exchange.up_ns), exchange.costliest))

    def _global_aggregation(self, record: RoundRecord, model: Version) -> RoundRecord:
        """There is a new global model: evaluate it, and return the record."""
        end = record.iteration
        record.aggregated_ns = self.env._now
        record.metrics = self.operations.evaluate(model, end) if self.plan.is_evaluated(end) else None
        if record.metrics is not None and self.is_enough is not None and self.is_enough(end, record.metrics):
            for gate in (gate for gates in self.gates for gate in gates.values()):
                gate.end = min(gate.end, end)
        if end == max(gates[0].end for gates in self.gates):
            self.operations.final = model
        if self.on_aggregated is not None:
            self.on_aggregated(end)
        return record

    def _record(self, phase: Phase) -> RoundRecord:
        """Return the record of a global aggregation that all workers are still to hold."""
        self._still_to_hold[phase.round] = len(self.plan.workers)
        return RoundRecord(phase.round, phase.end, -1, -1, Split(), None)

    def _holds_global_model(self, worker: int, record: RoundRecord) -> None:
        """A worker has the new global model; with the last one the round is over (DESIGN 4.5)."""
        # Events of one moment come in node order, so the first of several last ones stays.
        if self.env._now > record.time_ns:
            record.time_ns, record.split = self.env._now, self.split[worker]
        self._still_to_hold[record.round] -= 1
        if not self._still_to_hold[record.round]:
            del self._still_to_hold[record.round]
            self.on_round(self.recorder.finish(record))
            if self.schedule.graph is not None and record.iteration == self.gates[0][0].end:
                self._over.succeed()


def emulate(
    plan: Plan,
    operations: Operations,
    on_round: Callable[[RoundRecord], None],
    keep: Keep = "none",
    on_aggregated: Callable[[int], None] | None = None,
    is_enough: IsEnough | None = None,
) -> str:
    """Run one trial and return the hash of all its events; see `Emulation`."""
    return Emulation(plan, operations, on_round, keep, on_aggregated, is_enough).run()


def operations_hash(plan: Plan) -> str:
    """Return the hash of all operations of a plan's trial: two plans with one hash learn the same thing.

    Where no gate goes by time, it is the same on every network, and no clock is asked.
    """
    operations = Operations()
    if plan.depends_on_time:
        emulate(plan, operations, lambda record: None)
    else:
        _Walk(plan, operations).run()
    return operations.digest()


class _Walk:
    """All operations of a trial in the order of the tree, without a clock."""

    def __init__(self, plan: Plan, operations: Operations) -> None:
        self.plan, self.operations = plan, operations
        self.children: Mapping[int, Sequence[int]] = {}
        self.gates: dict[int, Gate] = {}
        self.tickets: dict[int, Ticket | None] = {}
        self.sent: dict[int, Version] = {}
        """By server that compresses it: what it sent down last."""

    def run(self) -> None:
        model = self.operations.start()
        self.of_hubs = dict.fromkeys(self.plan.mixing, model)
        for stage, gates in zip(self.plan.schedule.stages, self.plan.gates(), strict=True):
            self.children, self.gates = stage.children, gates
            self.tickets = {server: gate.first() for server, gate in gates.items()}
            for number in range(stage.rounds_before, stage.num_rounds(self.plan.iterations)):
                end = stage.end_of(number + 1)
                model = self._gathered(0, model, end) if self.plan.schedule.graph is None else self._mixed(end)
                if self.plan.is_evaluated(end):
                    self.operations.evaluate(model, end)

    def _mixed(self, end: int) -> Version:
        """Return the global model where hubs mix; each goes on with what it takes."""
        own, combine, graph = self.of_hubs, self.operations.combine, self.plan.schedule.graph
        assert graph is not None
        results = {hub: self._gathered(hub, model, end) for hub, model in own.items()}
        for hub in own:
            own[hub] = combine(hub, NOTHING, [results[one] for one in graph.members(hub)], self.plan.mixing[hub])
        return combine(0, NOTHING, list(results.values()), self.plan.hub_weights)

    def _gathered(self, server: int, model: Version, end: int) -> Version:
        """Return what a server has at iteration `end`, all below it having begun with `model`."""
        gate = self.gates[server]
        while (ticket := self.tickets[server]) is not None and ticket.phase.end <= end:
            phase, model = ticket.phase, self._sent_down(server, model)
            for child in self.children[server]:
                if child in self.gates:
                    made = self._sent_up(child, self._gathered(child, model, phase.end), model)
                    gate.arrive(ticket, child, made, "", 0)
                elif child not in ticket.sits_out:
                    made = self.operations.steps(child, model, phase.begin, phase.num_steps)
                    made = self._sent_up(child, made, model)
                    gate.arrive(ticket, child, made, "", 0)
            model = self.operations.combine(server, model, *gate.combination(ticket), gate.held(ticket))
            self.tickets[server] = gate.after(ticket)
        return model

    def _sent_up(self, node: int, model: Version, base: Version) -> Version:
        coded = (node, "up") in self.plan.sends.coded
        return self.operations.compress(node, "up", model, base) if coded else model

    def _sent_down(self, server: int, model: Version) -> Version:
        """Return what all below a server begin with; at first that is the initial model."""
        if (server, "down") in self.plan.sends.coded:
            if server in self.sent:
                model = self.operations.compress(server, "down", model, self.sent[server])
            self.sent[server] = model
        return model
