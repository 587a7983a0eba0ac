"""The SimPy engine: workers and servers as processes on a clock of integer nanoseconds.

DESIGN section 4 is the contract. Ties resolve by (time, node order). Not modelled: links shared between transfers,
workers that fail or come late, asynchronous servers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, cast

import simpy
from simpy.events import Event

from hsgd_emu.engine.plan import Draws, Exchange, Participation, Plan, weights
from hsgd_emu.engine.port import Learner
from hsgd_emu.engine.record import Activity, Barrier, Keep, Recorder, RoundRecord, Split

Process = Generator[Event, Any, None]


class Delay(Event):
    """A timeout whose ties resolve by node order instead of by the order of calls."""

    def __init__(self, env: simpy.Environment, delay_ns: int, node: int) -> None:
        super().__init__(env)
        self._ok = True
        self._value = None
        # Priorities 0 and 1 are SimPy's own: what follows from an event at once comes before the next node's.
        env.schedule(self, priority=node + 2, delay=delay_ns)  # type: ignore[arg-type]


class Phase:
    """One local period of a server: who takes part, who has arrived, and when the new model is sent down."""

    def __init__(self, env: simpy.Environment, members: tuple[int, ...], children: tuple[int, ...]) -> None:
        self.members = members
        self.sits_out = frozenset(children).difference(members) if len(members) < len(children) else frozenset()
        self.arrivals: dict[int, tuple[int, str]] = {}
        self.complete: Event = env.event()
        self.released: Event = env.event()
        self.still_to_take = len(children)

    def blame(self) -> tuple[int, str, int]:
        """Return the last child to arrive (the first in node order of several), its costliest link, and by how
        many nanoseconds it was later than the second last."""
        times = sorted(((-time, child) for child, (time, _) in self.arrivals.items()))
        last = times[0][1]
        slack_ns = times[1][0] - times[0][0] if len(times) > 1 else 0
        return last, self.arrivals[last][1], slack_ns


class Emulation:
    """One trial on the clock: drives a learner and reports every global aggregation.

    on_round is called once per global aggregation, when the last worker holds the new global model;
    on_aggregated when the global server has it, before any worker goes on.
    """

    def __init__(
        self,
        plan: Plan,
        learner: Learner,
        on_round: Callable[[RoundRecord], None],
        keep: Keep = "none",
        on_aggregated: Callable[[int], None] | None = None,
    ) -> None:
        self.env = simpy.Environment()
        self.plan, self.learner, self.schedule = plan, learner, plan.schedule
        self.on_round, self.on_aggregated = on_round, on_aggregated
        self.draws = Draws(plan)
        participation = Participation(plan)
        self._members = {server: participation.draws(server) for server in self.schedule.children}
        self._size = plan.sizes()
        self.recorder = Recorder(keep, self.schedule.global_period)
        self.split: dict[int, Split] = dict.fromkeys([*plan.workers, *self.schedule.children], Split())
        self._phases: dict[tuple[int, int], Phase] = {}
        self._rounds: dict[int, RoundRecord] = {}
        self._still_to_hold: dict[int, int] = {}

    def run(self) -> str:
        """Run the trial to its end and return the hash of all its events (SHA-256, hex)."""
        for server in self.schedule.children:
            self.env.process(self._serve(server))
        for worker in self.plan.workers:
            self.env.process(self._work(worker))
        try:
            self.env.run()
        except Exception as error:
            # SimPy raises a copy made from the arguments; the cause is what really happened.
            raise error.__cause__ or error from None
        return self.recorder.hash.hexdigest()

    def _work(self, worker: int) -> Process:
        """A worker's life: steps, upload, wait, download, again."""
        server = self.schedule.parent[worker]
        period = self.schedule.period[server]
        for done in range(0, self.plan.iterations, period):
            iteration = done + period
            # Drawn whether it takes part or not, so that participation leaves the other draws as they were.
            steps_ns = self.draws.steps_ns(worker, period)
            exchange = self.draws.exchange(worker)
            if worker not in self._phase(server, iteration).sits_out:
                yield from self._compute(worker, steps_ns, iteration)
                self.learner.local_steps(worker, done, period)
                yield from self._upload(worker, exchange, iteration)
            yield from self._download(worker, exchange, iteration)
            if iteration % self.schedule.global_period == 0:
                self._holds_global_model(worker, iteration)

    def _serve(self, server: int) -> Process:
        """A server's life: gather, aggregate, pass on (from above where a parent aggregates too), again."""
        period = self.schedule.period[server]
        parent = self.schedule.parent.get(server)
        for iteration in range(period, self.plan.iterations + 1, period):
            phase = self._phase(server, iteration)
            yield phase.complete
            yield from self._aggregate(server, phase, iteration)
            if parent is None:
                self._global_aggregation(iteration)
            elif iteration % self.schedule.period[parent] == 0:
                exchange = self.draws.exchange(server)
                yield from self._upload(server, exchange, iteration)
                yield from self._download(server, exchange, iteration)
            phase.released.succeed()

    def _phase(self, server: int, iteration: int) -> Phase:
        """Return the server's phase that ends at `iteration`, begun by whoever gets there first."""
        phase = self._phases.get((server, iteration))
        if phase is None:
            phase = Phase(self.env, next(self._members[server]), self.schedule.children[server])
            self._phases[server, iteration] = phase
        return phase

    @property
    def now_ns(self) -> int:
        """The clock: integers stay integers in SimPy as long as every delay is one."""
        return cast(int, self.env.now)

    def _compute(self, worker: int, steps_ns: int, iteration: int) -> Process:
        start = self.now_ns
        yield Delay(self.env, steps_ns, worker)
        self._spend(worker, self.split[worker], compute_ns=steps_ns)
        self._row(worker, "compute", start, iteration)

    def _upload(self, child: int, exchange: Exchange, iteration: int) -> Process:
        server, start = self.schedule.parent[child], self.now_ns
        yield Delay(self.env, exchange.up_ns, child)
        self._spend(child, self.split[child], communication_ns=exchange.up_ns)
        self._row(child, "upload", start, iteration, server, self.plan.message_bytes)
        phase = self._phase(server, iteration)
        phase.arrivals[child] = (self.now_ns, exchange.costliest)
        if len(phase.arrivals) == len(phase.members):
            phase.complete.succeed()

    def _download(self, child: int, exchange: Exchange, iteration: int) -> Process:
        """Wait until the server sends down, then receive."""
        server, start = self.schedule.parent[child], self.now_ns
        phase = self._phase(server, iteration)
        # A worker that sat out may still have been receiving the model before: it goes on from its own time.
        came_late = phase.released.processed
        yield phase.released
        sender = child if came_late else server
        if self.now_ns > start:
            self._row(child, "wait", start, iteration, server)
        start = self.now_ns
        split = self.split[sender]
        yield Delay(self.env, exchange.down_ns, child)
        self._spend(child, split, communication_ns=exchange.down_ns)
        self._row(child, "download", start, iteration, server, self.plan.message_bytes)
        self.learner.hand_down(server, child)
        phase.still_to_take -= 1
        if not phase.still_to_take:
            del self._phases[server, iteration]

    def _aggregate(self, server: int, phase: Phase, iteration: int) -> Process:
        start = self.now_ns
        blamed, link, slack_ns = phase.blame()
        first_ns = min(time for time, _ in phase.arrivals.values())
        if first_ns < start:
            self._row(server, "wait", first_ns, iteration, blamed)
        self.recorder.barrier(Barrier(server, iteration, start, blamed, link, slack_ns))
        cost_ns = self.draws.aggregation_ns(server)
        if cost_ns:
            yield Delay(self.env, cost_ns, server)
        self._spend(server, self.split[blamed], aggregation_ns=cost_ns)
        self._row(server, "aggregate", start, iteration, blamed)
        self.learner.aggregate(server, phase.members, weights(self.plan, phase.members, self._size))

    def _global_aggregation(self, iteration: int) -> None:
        metrics = self.learner.evaluate(0, iteration) if self.plan.is_evaluated(iteration) else None
        if self.on_aggregated is not None:
            self.on_aggregated(iteration)
        number = iteration // self.schedule.global_period
        self._rounds[iteration] = RoundRecord(number, iteration, -1, self.now_ns, Split(), metrics)
        self._still_to_hold[iteration] = len(self.plan.workers)

    def _holds_global_model(self, worker: int, iteration: int) -> None:
        """A worker has the new global model; with the last one the round is over (DESIGN 4.5)."""
        record = self._rounds[iteration]
        # Events of one moment come in node order, so the first of several last ones stays.
        if self.now_ns > record.time_ns:
            record.time_ns, record.split = self.now_ns, self.split[worker]
        self._still_to_hold[iteration] -= 1
        if not self._still_to_hold[iteration]:
            del self._rounds[iteration], self._still_to_hold[iteration]
            self.on_round(self.recorder.finish(record))

    def _spend(
        self, node: int, split: Split, compute_ns: int = 0, communication_ns: int = 0, aggregation_ns: int = 0
    ) -> None:
        """Set what determined a node's time: the split of the event before, and what it spent since."""
        self.split[node] = Split(
            split.compute_ns + compute_ns,
            split.communication_ns + communication_ns,
            split.aggregation_ns + aggregation_ns,
        )

    def _row(self, node: int, kind: str, start_ns: int, iteration: int, peer: int = -1, num_bytes: int = 0) -> None:
        self.recorder.activity(Activity(node, kind, start_ns, self.now_ns, iteration, num_bytes, peer))


def emulate(
    plan: Plan,
    learner: Learner,
    on_round: Callable[[RoundRecord], None],
    keep: Keep = "none",
    on_aggregated: Callable[[int], None] | None = None,
) -> str:
    """Run one trial and return the hash of all its events; see `Emulation`."""
    return Emulation(plan, learner, on_round, keep, on_aggregated).run()
