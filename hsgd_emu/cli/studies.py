"""The commands about many networks and schedules: what if, which, where, and how fast is it really?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from hsgd_emu.cli.app import (
    Device,
    Out,
    Precision,
    RunDir,
    RunFile,
    Sets,
    Texts,
    TrustCode,
    app,
    guarded,
    print_lines,
    print_table,
)
from hsgd_emu.cli.runs import print_results, write_report_of
from hsgd_emu.errors import ConfigError
from hsgd_emu.terminal import say

ExecutorName = StrEnum("ExecutorName", "local ray")
ClockName = StrEnum("ClockName", "auto simpy")
PlanForm = StrEnum("PlanForm", "text json")
Executor = Annotated[
    ExecutorName, Option(help="Where trials are learned: processes of this machine, or a Ray cluster.")
]
Jobs = Annotated[int | None, Option(min=1, help="Trials learned at a time (default: one per core; on CUDA one).")]
RayAddress = Annotated[
    str | None, Option(metavar="ADDRESS", help="Of the Ray cluster (default: RAY_ADDRESS, else the one here).")
]
Clock = Annotated[ClockName, Option(help="auto: the fast clock where it applies; simpy: always the engine.")]
Learn = Annotated[Device, Option(help="Where to learn; auto takes CUDA where there is one.")]
Products = Annotated[Precision, Option(help="Of products in the learning.")]
Library = Annotated[
    Path | None,
    Option(help="Folder of learned trials, shared by all studies (default: runs/out/trials).", show_default=False),
]
Target = Annotated[
    str | None, Option(metavar="METRIC=LEVEL", help="As test_accuracy=0.8 (default: the run's hardest reached).")
]


@app.command(epilog="Example:  hsgd-emu retime runs/out/demo --out slower --scale far=2")
@guarded
def retime(
    run_dir: RunDir,
    out: Annotated[Path, Option(help="Folder of the results.")],
    sets: Annotated[Texts, Option("--set", metavar="KEY=VALUE", help="Change any timing in the run file.")] = None,
    scales: Annotated[
        Texts, Option("--scale", metavar="NAME=FACTOR", help="Multiply every time of a profile, or of `compute`.")
    ] = None,
    profiles: Annotated[Texts, Option("--profile", metavar="NAME=FILE", help="Bind another profile to a name.")] = None,
    topology: Annotated[
        str | None, Option(metavar="FILE", help="Another topology: the same nodes with other links or profiles.")
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace the run that is there.")] = False,
) -> None:
    """Replay what a finished run has learned on another network, exactly and without training."""
    from hsgd_emu.progress import show_progress
    from hsgd_emu.results.folder import iterations_of, read_run_file, require_run_folder
    from hsgd_emu.study.retime import retime as retime_run

    require_run_folder(run_dir)
    run = read_run_file(run_dir)
    num_trials = len(run.get("cases", ())) * len(run.get("seeds", ()))
    with show_progress(num_trials, iterations_of(run_dir)) as progress:
        folder = retime_run(run_dir, out, sets or [], scales or [], profiles or [], topology, force, progress)
        path = write_report_of(folder, progress)
    print_results(folder, path)


@app.command(epilog="Example:  hsgd-emu study runs/studies/demo_far_near_step.yaml --dry-run")
@guarded
def study(
    file: Annotated[Path, Argument(help="A study file, as in runs/studies/.", show_default=False)],
    out: Out = None,
    sets: Annotated[
        Texts, Option("--set", metavar="KEY=VALUE", help="Change any dotted key of the study file, or of its run.")
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Only tell what would be done, and how long.")] = False,
    force: Annotated[bool, Option("--force", help="Replace another study that is there.")] = False,
    executor: Executor = ExecutorName.local,
    jobs: Jobs = None,
    ray_address: RayAddress = None,
    clock: Clock = ClockName.auto,
    device: Learn = Device.auto,
    precision: Products = Precision.auto,
    library: Library = None,
    trust_code: TrustCode = False,
) -> None:
    """Emulate a run on many networks: each distinct trial is learned once, all others are re-timed.

    Killed at any moment, the same command goes on where it was.
    """
    from hsgd_emu.progress import show_study_progress
    from hsgd_emu.report import write_report
    from hsgd_emu.study.sweep.run_study import plan_of_study, run_study
    from hsgd_emu.study.sweep.wording import answers, result_tables

    given = _given(jobs, clock, device, precision, library)
    if dry_run:
        print_lines(plan_of_study(file, sets or [], trust_code=trust_code, **given).lines())
        return
    with show_study_progress() as progress:
        place: dict[str, Any] = {"executor": executor.value, "ray_address": ray_address}
        folder = run_study(file, out, sets or [], force=force, progress=progress, **place, **given)
        progress.say("writing the report")
        path = write_report(folder)
    print_table([result_tables(folder)])
    print_lines(answers(folder))
    say(f"\nResults: {folder}\nReport:  {path}")


@app.command(epilog="Example:  hsgd-emu plan runs/demo.yaml --target test_accuracy=0.5")
@guarded
def plan(
    file: RunFile,
    target: Annotated[str, Option(metavar="METRIC=LEVEL", help="To be reached first, as test_accuracy=0.8.")],
    sets: Sets = None,
    periods: Annotated[
        Texts,
        Option(
            metavar="P,P,...",
            help="Periods to choose from; given once for all levels, or once for each from the root down "
            "(default: 1, 2, 5, 10, 20, ...).",
        ),
    ] = None,
    topologies: Annotated[Texts, Option("--topology", metavar="FILE", help="Another topology to choose from.")] = None,
    groupings: Annotated[
        Texts, Option("--grouping", metavar="NAME", help="Another data.grouping to choose from.")
    ] = None,
    tries: Annotated[
        Texts,
        Option(
            "--try",
            metavar="KEY=VALUE",
            help="Another setting to choose from, of train, servers, mixing, compression or averaging, as in "
            "train.learning_rate=0.1 or 'servers.root={optimizer: momentum, momentum: 0.9}'; those of one key are "
            "alternatives, those of several are combined.",
        ),
    ] = None,
    budget: Annotated[
        str | None, Option(metavar="SHARE", help="Stop when so much of learning every schedule to its end is learned.")
    ] = None,
    confidence: Annotated[
        str | None,
        Option(metavar="SHARE", help="Drop who is beaten with this probability, as 0.95 (default: nobody, exact)."),
    ] = None,
    replications: Annotated[int, Option(min=1, help="Draws of the network for each seed.")] = 10,
    executor: Executor = ExecutorName.local,
    jobs: Jobs = None,
    ray_address: RayAddress = None,
    clock: Clock = ClockName.auto,
    device: Learn = Device.auto,
    precision: Products = Precision.auto,
    library: Library = None,
    out: Annotated[
        Path | None, Option(help="Page of the race (default: in runs/out/NAME-plan).", show_default=False)
    ] = None,
    force: Annotated[bool, Option("--force", help="Write the page over a file that is none of ours.")] = False,
    form: Annotated[PlanForm, Option("--format", help="text, or JSON alone on standard output.")] = PlanForm.text,
) -> None:
    """Race schedules to a target: periods, groupings, topologies, settings. Exact for the seeds and draws given.

    All are learned as far as their clocks allow, side by side in emulated time, until the first arrives.
    """
    from hsgd_emu.progress import show_study_progress
    from hsgd_emu.report import write_plan
    from hsgd_emu.study.finished import target_of
    from hsgd_emu.study.planning.plan import plan_schedule
    from hsgd_emu.study.sensitivity import share_of

    with show_study_progress() as progress:
        found = plan_schedule(
            *(file, target_of(target), sets or []),
            topologies=topologies or [],
            groupings=groupings or [],
            tries=tries or [],
            periods=_periods(periods) if periods else None,
            budget=1.0 if budget is None else share_of(budget, "--budget"),
            confidence=None if confidence is None else share_of(confidence, "--confidence"),
            replications=replications,
            progress=progress,
            **_given(jobs, clock, device, precision, library, executor=executor.value, ray_address=ray_address),
        )
    if form is PlanForm.json:
        print(json.dumps(found.as_json()))
    else:
        print_table([[found.table()]])
        print_lines(found.lines())
    page = write_plan(found, out, force)
    if form is PlanForm.text:
        say(f"\nPage: {page}")


def _given(
    jobs: int | None, clock: ClockName, device: Device, precision: Precision, library: Path | None, **more: Any
) -> dict[str, Any]:
    """Return what a study and a plan are told alike, by their names for it."""
    from hsgd_emu.study.training.library import DEFAULT_FOLDER

    names = {"clock": clock.value, "device": device.value, "precision": precision.value}
    return {"jobs": jobs, **names, "library": library or DEFAULT_FOLDER, **more}


def _periods(texts: Sequence[str]) -> list[list[int]]:
    parts = [[part.strip() for part in text.split(",")] for text in texts]
    for text, numbers in zip(texts, parts, strict=True):
        if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in numbers):
            raise ConfigError.of(f"--periods {text}", "", "expected whole numbers with commas, as in 5,10,50")
    return [[int(part) for part in numbers] for numbers in parts]


@app.command(epilog="Example:  hsgd-emu sensitivity runs/out/demo --improve 20%")
@guarded
def sensitivity(
    run_dir: RunDir,
    improve: Annotated[str, Option(metavar="SHARE", help="How much smaller each cost is made.")] = "10%",
    target: Target = None,
) -> None:
    """Which link, worker or server buys the most time to the target if it were faster? Exact, by re-timing."""
    from hsgd_emu.study.finished import target_of
    from hsgd_emu.study.sensitivity import sensitivity as sensitivity_of
    from hsgd_emu.study.sensitivity import share_of

    found = sensitivity_of(run_dir, share_of(improve, "--improve"), None if target is None else target_of(target))
    print_table([[found.table(details=True)], [found.table(details=False)]])
    print_lines(found.lines())


@app.command(epilog="Example:  hsgd-emu fit runs/out/demo --table measured.csv --fix compute=0.004")
@guarded
def fit(
    run_dir: RunDir,
    table: Annotated[
        Path | None,
        Option(
            help="CSV with case,time_s (and metric,target,seed or iterations; default: the run's published times).",
            show_default=False,
        ),
    ] = None,
    fixes: Annotated[Texts, Option("--fix", metavar="NAME=SECONDS", help="What is known: an RTT, or compute.")] = None,
) -> None:
    """The inverse question: which RTTs and step times explain measured or published times best, and how surely?"""
    from hsgd_emu.study.fitting.fit import fit as fit_table
    from hsgd_emu.study.fitting.fit import parse_fixed

    found = fit_table(run_dir, table, parse_fixed(fixes or []))
    print_table([[found.result_table()]])
    print_lines(found.lines())
    if found.snippet():
        say(f"\nFor a run file:\n\n{found.snippet()}", end="")
