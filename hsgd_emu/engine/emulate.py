"""The SimPy engine: workers and servers as processes on a clock of integer nanoseconds.

DESIGN section 4 is the contract. Ties resolve by (time, node order). Not modelled: links shared between transfers,
workers that fail or come late, asynchronous servers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import simpy
from simpy.events import Event

from hsgd_emu.engine.network import Exchange
from hsgd_emu.engine.plan import Participation, Plan, weights
from hsgd_emu.engine.port import Learner, Metrics
from hsgd_emu.engine.record import Barrier, Keep, Recorder, RoundRecord, Split

Process = Generator[Event, Any, None]
IsEnough = Callable[[int, Metrics], bool]


class Clock(simpy.Environment):
    """SimPy's environment; its time stays an integer as long as every delay is one."""

    _now: int

    @property
    def now_ns(self) -> int:
        return self._now


class Delay(Event):
    """A timeout whose ties resolve by node order instead of by the order of calls."""

    def __init__(self, env: simpy.Environment, delay_ns: int, node: int) -> None:
        # Set here, as SimPy's own Timeout does, for there is one of these per event.
        self.env, self.callbacks, self._ok, self._value = env, [], True, None
        # Priorities 0 and 1 are SimPy's own: what follows from an event at once comes before the next node's.
        # SimPy's type of a priority is an int by another name; naming it would cost a call per event.
        env.schedule(self, node + 2, delay_ns)  # type: ignore[arg-type]


class Phase:
    """One period of a server: who takes part, who has arrived, and when the new model is sent down."""

    def __init__(
        self, env: simpy.Environment, server: int, iteration: int, children: tuple[int, ...], members: tuple[int, ...]
    ) -> None:
        self.server, self.iteration, self.members = server, iteration, members
        self.sits_out = frozenset(children).difference(members) if len(members) < len(children) else frozenset()
        self.missing, self.still_to_take = len(members), len(children)
        self.complete: Event = env.event()
        self.released: Event = env.event()
        self.first_ns = self.last_ns = self.second_last_ns = -1
        self.blamed, self.link = -1, ""
        self.released_ns, self.split = -1, Split()

    def arrive(self, child: int, link: str, now_ns: int) -> None:
        """Take a child's model in; the last to arrive (the first in node order of several) is blamed, and with it
        the costliest link of its way."""
        if self.first_ns < 0:
            self.first_ns = now_ns
        self.second_last_ns = self.last_ns
        if now_ns > self.last_ns or child < self.blamed:
            self.last_ns, self.blamed, self.link = now_ns, child, link
        self.missing -= 1
        if not self.missing:
            self.complete.succeed()

    def release(self, split: Split, now_ns: int) -> None:
        """Send the new model down to all children."""
        self.released_ns, self.split = now_ns, split
        self.released.succeed()

    @property
    def slack_ns(self) -> int:
        """How much later the last child was than the second last."""
        return self.last_ns - self.second_last_ns if self.second_last_ns >= 0 else 0


class Emulation:
    """One trial on the clock: drives a learner and reports every global aggregation.

    on_round is called once per global aggregation, when the last worker holds the new global model;
    on_aggregated when the global server has it, before any worker goes on. is_enough is asked at each evaluated
    global aggregation, in the same moment: where it is, the trial is one of so many iterations from then on.
    """

    def __init__(
        self,
        plan: Plan,
        learner: Learner,
        on_round: Callable[[RoundRecord], None],
        keep: Keep = "none",
        on_aggregated: Callable[[int], None] | None = None,
        is_enough: IsEnough | None = None,
    ) -> None:
        self.env = Clock()
        self.plan, self.learner, self.schedule = plan, learner, plan.schedule
        self.on_round, self.on_aggregated, self.is_enough = on_round, on_aggregated, is_enough
        self._last = plan.iterations
        self.draws = plan.draws()
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
        lives = [self._serve(server) for server in self.schedule.children]
        lives += [self._work(worker) for worker in self.plan.workers]
        processes = [self.env.process(life) for life in lives]
        try:
            self.env.run()
        except Exception as error:
            # SimPy raises a copy made from the arguments; the process has what really happened.
            failed: list[Any] = [process.value for process in processes if process.triggered and not process.ok]
            raise (failed[0] if failed else error) from None
        assert all(process.triggered for process in processes), "somebody waits for a message that never comes"
        return self.recorder.digest()

    def _work(self, worker: int) -> Process:
        """A worker's life: steps, upload, wait, download, again."""
        server = self.schedule.parent[worker]
        period = self.schedule.period[server]
        for done in self._periods(period):
            iteration = done + period
            phase = self._phase(server, iteration)
            # Drawn whether it takes part or not, so that participation leaves the other draws as they were.
            steps_ns = self.draws.steps_ns(worker, period)
            exchange = self.draws.exchange(worker)
            if worker not in phase.sits_out:
                yield from self._compute(worker, steps_ns, iteration)
                self.learner.local_steps(worker, done, period)
                yield from self._upload(worker, phase, exchange)
            yield from self._download(worker, phase, exchange)
            if iteration % self.schedule.global_period == 0:
                self._holds_global_model(worker, iteration)

    def _serve(self, server: int) -> Process:
        """A server's life: gather, aggregate, pass on (from above where a parent aggregates too), again."""
        period = self.schedule.period[server]
        parent = self.schedule.parent.get(server)
        for done in self._periods(period):
            iteration = done + period
            phase = self._phase(server, iteration)
            yield phase.complete
            yield from self._aggregate(phase)
            if parent is None:
                self._global_aggregation(iteration)
            elif iteration % self.schedule.period[parent] == 0:
                above, exchange = self._phase(parent, iteration), self.draws.exchange(server)
                yield from self._upload(server, above, exchange)
                yield from self._download(server, above, exchange)
            phase.release(self.split[server], self.env.now_ns)

    def _periods(self, period: int) -> Iterator[int]:
        """Yield the iterations at which periods begin; the end may come nearer meanwhile."""
        done = 0
        while done < self._last:
            yield done
            done += period

    def _phase(self, server: int, iteration: int) -> Phase:
        """Return the server's phase that ends at `iteration`, begun by whoever gets there first."""
        phase = self._phases.get((server, iteration))
        if phase is None:
            members = next(self._members[server])
            phase = Phase(self.env, server, iteration, self.schedule.children[server], members)
            self._phases[server, iteration] = phase
        return phase

    def _compute(self, worker: int, steps_ns: int, iteration: int) -> Process:
        start_ns = self.env.now_ns
        yield Delay(self.env, steps_ns, worker)
        self.split[worker] = self.split[worker].plus(compute_ns=steps_ns)
        self.recorder.activity(worker, "compute", start_ns, start_ns + steps_ns, iteration)

    def _upload(self, child: int, phase: Phase, exchange: Exchange) -> Process:
        start_ns, end_ns = self.env.now_ns, self.env.now_ns + exchange.up_ns
        yield Delay(self.env, exchange.up_ns, child)
        self.split[child] = self.split[child].plus(communication_ns=exchange.up_ns)
        self.recorder.activity(
            child, "upload", start_ns, end_ns, phase.iteration, self.plan.message_bytes, phase.server
        )
        phase.arrive(child, exchange.costliest, end_ns)

    def _download(self, child: int, phase: Phase, exchange: Exchange) -> Process:
        """Wait until the server sends down, then receive."""
        start_ns, split = self.env.now_ns, self.split[child]
        yield phase.released
        # A worker that sat out may still have been receiving the model before: it goes on from its own time.
        if phase.released_ns >= start_ns:
            if phase.released_ns > start_ns:
                self.recorder.activity(child, "wait", start_ns, phase.released_ns, phase.iteration, peer=phase.server)
            start_ns, split = phase.released_ns, phase.split
        yield Delay(self.env, exchange.down_ns, child)
        self.split[child] = split.plus(communication_ns=exchange.down_ns)
        end_ns, num_bytes = start_ns + exchange.down_ns, self.plan.message_bytes
        self.recorder.activity(child, "download", start_ns, end_ns, phase.iteration, num_bytes, phase.server)
        self.learner.hand_down(phase.server, child)
        phase.still_to_take -= 1
        if not phase.still_to_take:
            del self._phases[phase.server, phase.iteration]

    def _aggregate(self, phase: Phase) -> Process:
        server, iteration, start_ns = phase.server, phase.iteration, self.env.now_ns
        if phase.first_ns < start_ns:
            self.recorder.activity(server, "wait", phase.first_ns, start_ns, iteration, peer=phase.blamed)
        self.recorder.barrier(Barrier(server, iteration, start_ns, phase.blamed, phase.link, phase.slack_ns))
        cost_ns = self.draws.aggregation_ns(server)
        if cost_ns:
            yield Delay(self.env, cost_ns, server)
        self.split[server] = self.split[phase.blamed].plus(aggregation_ns=cost_ns)
        self.recorder.activity(server, "aggregate", start_ns, start_ns + cost_ns, iteration, peer=phase.blamed)
        self.learner.aggregate(server, phase.members, weights(self.plan, phase.members, self._size))

    def _global_aggregation(self, iteration: int) -> None:
        metrics = self.learner.evaluate(0, iteration) if self.plan.is_evaluated(iteration) else None
        if metrics is not None and self.is_enough is not None and self.is_enough(iteration, metrics):
            self._last = iteration
        if self.on_aggregated is not None:
            self.on_aggregated(iteration)
        number = iteration // self.schedule.global_period
        self._rounds[iteration] = RoundRecord(number, iteration, -1, self.env.now_ns, Split(), metrics)
        self._still_to_hold[iteration] = len(self.plan.workers)

    def _holds_global_model(self, worker: int, iteration: int) -> None:
        """A worker has the new global model; with the last one the round is over (DESIGN 4.5)."""
        record = self._rounds[iteration]
        # Events of one moment come in node order, so the first of several last ones stays.
        if self.env.now_ns > record.time_ns:
            record.time_ns, record.split = self.env.now_ns, self.split[worker]
        self._still_to_hold[iteration] -= 1
        if not self._still_to_hold[iteration]:
            del self._rounds[iteration], self._still_to_hold[iteration]
            self.on_round(self.recorder.finish(record))


def emulate(
    plan: Plan,
    learner: Learner,
    on_round: Callable[[RoundRecord], None],
    keep: Keep = "none",
    on_aggregated: Callable[[int], None] | None = None,
    is_enough: IsEnough | None = None,
) -> str:
    """Run one trial and return the hash of all its events; see `Emulation`."""
    return Emulation(plan, learner, on_round, keep, on_aggregated, is_enough).run()
