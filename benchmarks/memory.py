"""How much memory the batched learner takes, and what a step costs, as the number of workers grows.

    python benchmarks/memory.py
    python benchmarks/memory.py --models cifar_cnn --workers 10 100
    python benchmarks/memory.py --device cuda

Each size runs in a process of its own, on synthetic data that all sizes share: a first round of 10 local steps per
worker (batch 20), which counts for memory only, then one that is timed. Host memory is resident memory; the peak is
counted from before the learner is made (on Linux; elsewhere from the start of the process), the data set and the
libraries are in the figure before. The last columns are the GPU's, as PyTorch allocated it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from workloads import LOCAL_PERIOD, MLP_VECTORS, SEED, WORKLOADS, Driver, Settings, engine_of, hardware, slots_of

from hsgd_emu.learning.models import model_bytes
from hsgd_emu.learning.world import choose_device
from hsgd_emu.spawning import num_cores

SIZES = {"cifar_cnn": (10, 100, 1000), "mlp": (10, 1000, 10_000)}
DATA = {"cifar_cnn": WORKLOADS["cifar_cnn"].data, "mlp": MLP_VECTORS.data}
_MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """One size, measured on the host; device figures are None without a GPU."""

    model: str
    num_workers: int
    engine: str
    model_bytes: int
    before_bytes: int
    peak_bytes: int
    setup_wall_s: float
    round_wall_s: float
    device_before_bytes: int | None
    device_peak_bytes: int | None

    @property
    def bytes_per_worker(self) -> float:
        if self.device_peak_bytes is not None and self.device_before_bytes is not None:
            return (self.device_peak_bytes - self.device_before_bytes) / self.num_workers
        return (self.peak_bytes - self.before_bytes) / self.num_workers


def measure(model: str, num_workers: int, settings: Settings) -> Measured:
    """Return what one size costs in this process."""
    settings.apply()
    world = settings.world(WORKLOADS[model].model, DATA[model], num_workers)
    world.resident(SEED)
    message_bytes = model_bytes(world.build(SEED))
    device_before = _device_bytes(settings.device, begin=True)
    before = begin_peak()
    begun = time.perf_counter()
    learner = world.learner(SEED, slots_of(num_workers))
    driver = Driver(learner, num_workers, LOCAL_PERIOD, settings.device)
    driver.round(False)
    ready = time.perf_counter()
    driver.round(False)
    round_s = time.perf_counter() - ready
    peak, device_peak = peak_bytes(), _device_bytes(settings.device)
    engine = engine_of(learner)
    return Measured(
        *(model, num_workers, engine, message_bytes, before, peak),
        *(ready - begun, round_s, device_before, device_peak),
    )


def begin_peak() -> int:
    """Return the resident memory now, and let the peak be counted from here where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_bytes("VmRSS") or _max_rss_bytes()


def peak_bytes() -> int:
    """Return the peak of the resident memory."""
    return _status_bytes("VmHWM") or _max_rss_bytes()


def _status_bytes(field: str) -> int | None:
    """Return a figure of Linux's /proc/self/status, None elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")]
    return found[0] if found else None


def _max_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def _device_bytes(device: torch.device, begin: bool = False) -> int | None:
    """Return the peak of the GPU's allocated memory; begin: what is allocated now, and count the peak from here."""
    if device.type != "cuda":
        return None
    if begin:
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return torch.cuda.max_memory_allocated(device)


def measure_apart(model: str, num_workers: int, settings: Settings) -> Measured:
    """Return the same, measured in a process of its own."""
    command = [sys.executable, __file__, "--one", "--models", model, "--workers", str(num_workers)]
    command += ["--device", settings.device.type, "--threads", str(settings.threads)]
    command += ["--precision", settings.precision] if settings.precision else []
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def table(rows: list[Measured]) -> str:
    """Return the measurements; per worker: peak less before, of the GPU where there is one."""
    head = ["model", "n", "before MiB", "peak MiB", "per worker KiB", "model KiB", "us/worker-step", "set-up s"]
    head += ["GPU before MiB", "GPU peak MiB", "engine"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 2)}---|"]
    for r in rows:
        step_us = r.round_wall_s / (r.num_workers * LOCAL_PERIOD) * 1e6
        cells = [r.model, f"{r.num_workers:,}", f"{r.before_bytes / _MIB:,.0f}", f"{r.peak_bytes / _MIB:,.0f}"]
        cells += [f"{r.bytes_per_worker / 1024:,.0f}", f"{r.model_bytes / 1024:,.0f}", f"{step_us:,.1f}"]
        cells += [f"{r.setup_wall_s:.2f}", _mib(r.device_before_bytes), _mib(r.device_peak_bytes), r.engine]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mib(num_bytes: int | None) -> str:
    return "" if num_bytes is None else f"{num_bytes / _MIB:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--workers", type=int, nargs="+", help="instead of each model's own sizes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--precision", help="handed to the product: fp32, tf32 or bf16")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    settings = Settings(choose_device(args.device), args.threads, args.precision)
    if args.one:
        print(json.dumps(asdict(measure(args.models[0], args.workers[0], settings))))
        return
    rows = []
    for model in args.models:
        for num_workers in args.workers or SIZES[model]:
            rows.append(measure_apart(model, num_workers, settings))
            print(f"{model}, {num_workers:,} workers: {rows[-1].round_wall_s:.2f} s", file=sys.stderr, flush=True)
    print(table(rows))
    print("\n" + "\n".join(hardware(settings, num_cores())))


if __name__ == "__main__":
    main()
