"""How large a report is, how long it takes to write, and to open in a browser: the median of five loads.

    python benchmarks/report.py [RUN_DIR ...]

Without folders: a run of 5 cases x 5 seeds x 2,000 evaluated rounds, its curves made up. Needs Chromium and its driver.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hsgd_emu.metrics import Metrics
from hsgd_emu.report import write_report
from hsgd_emu.results.rows import CurveRow, TrialKey
from hsgd_emu.results.store import RunStore

LOADS = 5
CASES, SEEDS, ROUNDS = 5, 5, 2_000
# The load event comes after the page's script has drawn every figure.
LOADED_MS = "const n = performance.getEntriesByType('navigation')[0]; return n.loadEventEnd - n.startTime"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    given = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, plotly {version('plotly')}"
    )
    print(f"{'run':<28} {'write':>8} {'size':>9} {'open':>8}")
    with tempfile.TemporaryDirectory() as place:
        folders = given.folders or [made_up(Path(place) / f"{CASES} x {SEEDS} x {ROUNDS:,}")]
        driver = browser()
        try:
            for folder in folders:
                print(row(folder, Path(place) / "page.html", driver), flush=True)
        finally:
            driver.quit()


def row(folder: Path, out: Path, driver: Any) -> str:
    write_report(folder, out)  # once to import what is needed
    begin = time.perf_counter()
    write_report(folder, out)
    write_s = time.perf_counter() - begin
    opened = []
    for _ in range(LOADS):
        driver.get(out.absolute().as_uri())
        opened.append(driver.execute_script(LOADED_MS) / 1000)
    size = out.stat().st_size / 1e6
    return f"{folder.name:<28} {write_s:6.2f} s {size:6.2f} MB {statistics.median(opened):6.2f} s"


def made_up(folder: Path) -> Path:
    cases = [f"P={i}" for i in range(1, CASES + 1)]
    entries = "\n".join(f'- {{name: "{case}", period: 1}}' for case in cases)
    keys = [TrialKey(case, seed) for case in cases for seed in range(SEEDS)]
    with RunStore.create(folder, f"name: long\ncases:\n{entries}\n", {}, keys, [("test_accuracy", 0.8)]) as store:
        for key in keys:
            for i in range(1, ROUNDS + 1):
                accuracy = 1 - 100 / (i + 100 + key.seed)
                curve = CurveRow(
                    i,
                    i,
                    i * 0.1,
                    i * 0.1,
                    0.0,
                    i * 0.1,
                    0.0,
                    Metrics(train_loss=1 - accuracy, test_loss=1 - accuracy, test_accuracy=accuracy),
                )
                store.commit_round(key, i, curve, [], [], [])
            store.finish_trial(key, "", "", "made up", 0.0)
    return folder


def browser() -> Any:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    return Chrome(options=options, service=Service(shutil.which("chromedriver")))


if __name__ == "__main__":
    main()
