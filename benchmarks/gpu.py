"""Everything about a GPU in one command: under ten minutes, a short table last.

    PYTHONPATH=. python benchmarks/gpu.py --device cuda --out FOLDER [--only engines bits] [--again]
    PYTHONPATH=. python benchmarks/gpu.py --device cpu --small       # a rehearsal: no GPU, no graphs, little of each

Needed beside a checkout, torch, torchvision (with Pillow) and NumPy: pydantic (with annotated-types, typing-extensions,
typing-inspection and pydantic-core, which is compiled: take the wheel for that machine's Python) and platformdirs; for
`tests` pytest. Not SimPy, networkx or what draws reports. All data are synthetic, nothing is downloaded.

Each section runs in a process of its own with a time limit of its own: a GPU left unusable or a full memory ends that
section only, and what it had measured stays. --out keeps the figures as JSON, and does not measure again what is there
without a failure.

  engines  vgg11, 10 workers, batch 20: ms per iteration (a step of all workers, a tenth of an averaging; median period)
  ratio    the conventional loop, the readable twin and the batched learner in turns
  small    many workers of small networks, with the engine that a run would choose
  memory   the GPU's peak memory, data set included, and per worker without it
  bits     the same weights twice; how far graphs and chunks move them: |difference| / the tensor's largest weight
  profile  kernels by device time over two periods (the whole table with --out)
  tests    the tests that need a GPU
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import workloads
from conventional import samples_of
from learning import Bench, profiled
from rows import TARGETS, VARIANTS, Row
from workloads import SEED, WORKLOADS, Driver, Settings, Workload, num_cores

from hsgd_emu.errors import ConfigError
from hsgd_emu.learning.engines import Precision
from hsgd_emu.learning.network import TrialSetup
from hsgd_emu.learning.stacked import StackedLearner
from hsgd_emu.learning.stacks import Tensors
from hsgd_emu.learning.tuning import Choice
from hsgd_emu.learning.world import World, choose_device

TFLOP, GB, ROOFLINE_MS = 0.21, 5.2, 1.2
"""One iteration of ten workers of vgg11, folded: products, weight traffic, and the time an H200 needs for that."""
CHUNKS = (10, 5, 1)
WARM_UP = 3  # periods: step by step, captured, replayed
PERIODS = (WARM_UP, 5, 0.5)
TURNS_S = 15.0
TESTS, TESTS_S = "tests/unit/learning/test_gpu.py", 50.0  # less than the section has: no process is left behind
REPOSITORY = Path(__file__).resolve().parent.parent


Item = tuple[str, str, Callable[[], str]]
"""What, the target, and what measures it: its first line goes into the table, all that follows only into the JSON."""


@dataclass(frozen=True, eq=False)
class Form:
    """The device and what to measure on it; usual: the precision of a run; num_steps: local steps per period."""

    device: torch.device
    small: bool
    precisions: tuple[Precision, ...]
    usual: Precision
    graphs: tuple[bool, ...]
    large: Workload
    num_steps: int

    def settings(self, precision: Precision) -> Settings:
        """Pin threads, algorithms and precision, and return them."""
        settings = Settings(self.device, num_cores(), precision)
        settings.apply()
        return settings


def form_of(device: torch.device, small: bool) -> Form:
    """Return the full form, or the small one for a rehearsal."""
    size = (workloads.REHEARSAL, 2) if small else (WORKLOADS["vgg11"], workloads.LOCAL_PERIOD)
    if device.type == "cuda":
        return Form(device, small, ("fp32", "tf32", "bf16"), "tf32", (True, False), *size)
    return Form(device, small, ("fp32", "bf16"), "fp32", (False,), *size)


@dataclass(frozen=True)
class Figure:
    """A line of the table; value: what was measured, or how it failed."""

    section: str
    what: str
    value: str
    target: str
    text: str = ""
    failed: bool = False


@cache
def large_world(form: Form) -> tuple[World, torch.nn.Module]:
    """Return the large network's data and initial model, once: vgg11 takes seconds to initialise."""
    world = form.settings(form.usual).world(form.large.model, form.large.data, form.large.sizes[0])
    return world, world.build(SEED)


def learner_of(form: Form, precision: Precision, graphs: bool, chunk: int) -> tuple[StackedLearner, Driver]:
    """Return a new learner of the large network, and what drives it."""
    workloads.release(form.device)
    world, model = large_world(form)
    form.settings(precision)
    names, data = world.worker_names, world.resident(SEED)
    setup = TrialSetup(SEED, names, workloads.slots_of(len(names)), world.train)
    learner = StackedLearner(copy.deepcopy(model), data, setup, Choice("layered", chunk), precision, graphs)
    return learner, Driver(learner, len(names), form.num_steps, form.device)


def check_captured(learner: StackedLearner) -> None:
    """Raise if a learner that may capture its periods did not: it would be measured as if it had."""
    if learner.periods is not None and not any(learner.periods._known.values()):
        raise RuntimeError("no period was captured: its masks, or the graph, would take too much memory")


def engines(form: Form) -> Iterator[Item]:
    target = "" if form.small else f"{ROOFLINE_MS} ms (1 x)"
    for precision in form.precisions:
        for graphs in form.graphs:
            for chunk in CHUNKS:
                what = f"{precision}, {'graphs' if graphs else 'eager'}, layered:{chunk}"
                yield what, target, partial(_iteration, form, precision, graphs, chunk)


def _iteration(form: Form, precision: Precision, graphs: bool, chunk: int) -> str:
    learner, driver = learner_of(form, precision, graphs, chunk)
    spans = [span_s / driver.num_steps for span_s in driver.rounds_wall_s(*PERIODS)]
    check_captured(learner)
    each_s = statistics.median(spans)
    rates = f", {TFLOP / each_s:.0f} TFLOP/s, {GB / each_s:,.0f} GB/s, {each_s * 1000 / ROOFLINE_MS:.1f} x roofline"
    text = "ms of each period: " + " ".join(f"{span_s * 1000:.3f}" for span_s in spans)
    return f"{each_s * 1000:.2f} ms{'' if form.small else rates}\n{text}"


def ratio(form: Form) -> Iterator[Item]:
    for evaluated, what in ((False, "training"), (True, "with evaluation")):
        target = "" if form.small else "{:g} (aim {:g})".format(*TARGETS["cuda"]["vgg11"][10, evaluated])
        yield f"{form.usual}, {what}", target, partial(_turns, form, evaluated)


@cache
def variants_of(form: Form) -> Bench:
    """Return the three variants, ready to take turns."""
    world, samples = large_world(form)[0], samples_of(large_world(form)[0].dataset, form.large.data.augment)
    return Bench(world, samples, VARIANTS, form.large.sizes[0], form.num_steps)


def _turns(form: Form, evaluated: bool) -> str:
    bench = variants_of(form)
    turns = bench.take_turns(evaluated, 1.0 if form.small else TURNS_S)
    row = Row(form.large.name, form.large.sizes[0], form.num_steps, evaluated, bench.engine, turns)
    steps = ", ".join(f"{name} {row.steps_per_s(name):,.0f}" for name in VARIANTS)
    return f"{row.ratio:.1f} x; worker-steps/s: {steps}; {row.engine}\nseconds per round: {json.dumps(turns)}"


def many(sizes: dict[str, tuple[int, ...]], form: Form) -> Iterator[Item]:
    for name, numbers in sizes.items():
        workload = workloads.MLP_VECTORS if name == "mlp" else workloads.REHEARSAL if form.small else WORKLOADS[name]
        for num_workers in (4, 10) if form.small else numbers:
            yield f"{workload.name}, {num_workers:,} workers", "", partial(_sized, form, workload, num_workers)


def _sized(form: Form, workload: Workload, num_workers: int) -> str:
    workloads.release(form.device)
    world = form.settings(form.usual).world(workload.model, workload.data, num_workers)
    world.resident(SEED)
    begun = time.perf_counter()
    world.choose(SEED)
    choosing_s = time.perf_counter() - begun
    before_bytes = workloads.release(form.device)
    learner = world.learner(SEED, workloads.slots_of(num_workers))
    spans = Driver(learner, num_workers, form.num_steps, form.device).rounds_wall_s(*PERIODS)
    each_s = statistics.median(spans) / form.num_steps
    parts = [f"{num_workers / each_s:,.0f} worker-steps/s", f"{each_s * 1000:.2f} ms an iteration"]
    if form.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(form.device)
        parts += [f"peak {peak / 2**20:,.0f} MiB, {(peak - before_bytes) / num_workers / 2**20:,.1f} a worker"]
    return ", ".join([*parts, f"{workloads.engine_of(learner)} (chosen in {choosing_s:.1f} s)"])


def bits(form: Form) -> Iterator[Item]:
    @cache
    def trained(graphs: bool, chunk: int, attempt: int = 1) -> tuple[str, Tensors]:
        learner, driver = learner_of(form, form.usual, graphs, chunk)
        driver.rounds_wall_s(WARM_UP, 0, 0.0)
        check_captured(learner)
        return learner.weights_hash(workloads.ROOT), learner.model_of(workloads.ROOT)

    def same() -> str:
        hashes = [trained(True, CHUNKS[0], attempt)[0] for attempt in (1, 2)]
        if hashes[0] != hashes[1]:
            raise RuntimeError(f"weights differ: {hashes[0]} and {hashes[1]}")
        return "same weights hash\n" + hashes[0]

    def apart(graphs: bool, chunk: int) -> str:
        return f"{_difference(trained(graphs, chunk)[1], trained(True, CHUNKS[0])[1]):.1e}"

    yield f"{WARM_UP} periods twice, {form.usual}", "same", same
    yield "graphs on against off", "0", partial(apart, False, CHUNKS[0])
    yield f"{CHUNKS[0]} workers at a time against {CHUNKS[-1]}", "rounding", partial(apart, True, CHUNKS[-1])


def _difference(model: Tensors, other: Tensors) -> float:
    """Return the largest difference of a weight, relative to the largest weight of its tensor."""
    pairs = ((tensor, other[name]) for name, tensor in model.items() if tensor.is_floating_point())
    return max(float((one - two).abs().max() / two.abs().max().clamp_min(1e-30)) for one, two in pairs)


def profile(form: Form) -> Iterator[Item]:
    for graphs in form.graphs:
        yield f"{form.usual}, {'graphs' if graphs else 'eager'}", "", partial(_kernels, form, graphs)


def _kernels(form: Form, graphs: bool) -> str:
    learner, driver = learner_of(form, form.usual, graphs, CHUNKS[0])
    wall_ms = 2 * statistics.median(driver.rounds_wall_s(*PERIODS)) * 1000
    check_captured(learner)
    found = profiled(lambda: (driver.round(False), driver.round(False)), form.device.type)
    on_cuda = form.device.type == "cuda"
    events = [e for e in found if not on_cuda or e.device_type.name == "CUDA"]
    spent = [(e.self_device_time_total if on_cuda else e.self_cpu_time_total, e.count, e.key) for e in events]
    total_us = sum(us for us, _, _ in spent)
    largest = sorted(spent, reverse=True)[:12]
    lines = [f"{us / 1000:9.2f} ms {us / total_us:6.1%} {count:6} x {key}" for us, count, key in largest]
    print(*(f"  {line[:150]}" for line in lines[:5]), sep="\n", flush=True)
    what = "kernels" if on_cuda else "operators"
    return "\n".join([f"{what} {total_us / 1000:.1f} ms, two periods without the profiler {wall_ms:.1f} ms", *lines])


def gpu_tests() -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", TESTS]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=TESTS_S)
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    if done.returncode and "No module named pytest" not in last:
        raise RuntimeError("\n".join([last, done.stdout, done.stderr]))
    return "\n".join([last, done.stdout])


SECTIONS: dict[str, tuple[Callable[[Form], Iterator[Item]], float]] = {
    "engines": (engines, 150.0),
    "ratio": (ratio, 120.0),
    "small": (partial(many, {"cifar_cnn": (10, 100, 1000), "mlp": workloads.MLP_VECTORS.sizes}), 100.0),
    "memory": (partial(many, {"vgg11": (10, 20, 40), "cifar_cnn": (100, 1000)}), 60.0),
    "bits": (bits, 50.0),
    "profile": (profile, 40.0),
    "tests": (lambda form: iter([(TESTS, "all pass", gpu_tests)]), 60.0),
}
"""What measures, and how many seconds it may take: together less than ten minutes."""


def figure_of(section: str, what: str, target: str, measure: Callable[[], str]) -> Figure:
    """Measure one thing; if it fails, that is its figure, and stderr has all about it."""
    try:
        value, _, text = measure().partition("\n")
        return Figure(section, what, value, target, text)
    except Exception as error:
        traceback.print_exception(error)
        first, _, rest = f"{type(error).__name__}: {error}".partition("\n")
        return Figure(section, what, f"failed: {first}", target, rest, failed=True)


def measure_here(name: str, form: Form, file: Path) -> None:
    """Write each figure of a section as a line of the file as soon as it is known."""
    with file.open("a", encoding="utf-8") as lines:
        for item in SECTIONS[name][0](form):
            figure = figure_of(name, *item)
            print(json.dumps(asdict(figure)), file=lines, flush=True)
            print(f"{name}: {figure.what}: {figure.value}", flush=True)


def measure_apart(name: str, form: Form) -> list[Figure]:
    """Measure a section in a process of its own, which is ended when its time is over."""
    limit_s, error = SECTIONS[name][1], ""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
        command = [sys.executable, __file__, "--device", form.device.type, "--one", name, file.name]
        try:
            status = subprocess.run([*command, *["--small"] * form.small], timeout=limit_s).returncode
            error = f"failed: the process ended with status {status}" if status else ""
        except subprocess.TimeoutExpired:
            error = f"failed: stopped after {limit_s:.0f} s"
        figures = [Figure(**json.loads(line)) for line in file if line.endswith("\n")]
    return [*figures, Figure(name, "the rest", error, "", failed=True)] if error else figures


def table(figures: Sequence[Figure]) -> str:
    """Return section, what, value and target of each figure."""
    rows = [(f.section, f.what, f.value, f.target) for f in figures]
    return "\n".join(f"| {' | '.join(row)} |" for row in (("section", "what", "value", "target"), ("---",) * 4, *rows))


def run(form: Form, names: Sequence[str], out: Path | None, again: bool) -> None:
    """Measure the sections that are not known yet, and print the table of all."""
    known: dict[str, list[dict[str, Any]]] = {}
    file = out / f"{form.device.type}{'_small' * form.small}.json" if out else None
    if file and file.exists():
        known = json.loads(file.read_text(encoding="utf-8"))["sections"]
    facts = workloads.hardware(Settings(form.device, num_cores()), num_cores())
    for name in names:
        if name in known and not again and not any(figure["failed"] for figure in known[name]):
            print(f"{name}: known from {file}", flush=True)
            continue
        begun = time.perf_counter()
        known[name] = [asdict(figure) for figure in measure_apart(name, form)]
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"hardware": facts, "sections": known}, indent=1) + "\n", encoding="utf-8")
    figures = [Figure(**figure) for name in SECTIONS for figure in known.get(name, [])]
    print("\n".join(["", *facts, "", table(figures)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--small", action="store_true", help="little of everything, a small network for vgg11")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the figures there, and go on from them")
    parser.add_argument("--again", action="store_true", help="measure what is in the folder already, too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        form = form_of(choose_device(args.device), args.small)
    except ConfigError as error:
        parser.error(str(error))
    if args.one:
        torch.manual_seed(SEED)  # of the conventional loop
        measure_here(args.one[0], form, Path(args.one[1]))
    else:
        run(form, args.only, args.out, args.again)


if __name__ == "__main__":
    main()
