"""Error against communication rounds, as Patel and Dieuleveut (2019): figures of a run of local_sgd_rounds.yaml.

    hsgd-emu run runs/local_sgd_rounds_squared.yaml
    python benchmarks/rounds.py runs/out/local_sgd_rounds_squared docs/figures/local_sgd_rounds_squared.svg

Above: the loss on the whole training set against global aggregations; below: against iterations. One column for each
step size. Medians over seeds. Where the loss is squared, what is drawn is the distance to the least loss (a closed
form), and in black what theory says of the mean model of workers with one Hessian, whatever the rounds: `law`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import sklearn.datasets
from plotly.subplots import make_subplots

import hsgd_emu
from hsgd_emu.experiment import load_experiment

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
POINTS = 25
"""Of each line at most, evenly spread over the logarithm."""

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def training_set() -> tuple[Floats, Floats]:
    """Return the digits' training samples with a column of ones, and their one-hot labels."""
    digits = sklearn.datasets.load_digits()
    x = np.hstack([digits.data[:1437] / 16, np.ones((1437, 1))])
    return x, np.eye(10)[digits.target[:1437]]


def least_loss(x: Floats, y: Floats) -> tuple[Floats, float]:
    """Return the least squares solution, and half its mean squared residual."""
    best = np.linalg.lstsq(x, y, rcond=None)[0]
    return best, float(0.5 * np.square(x @ best - y).sum(1).mean())


def law(x: Floats, y: Floats, rates: Floats, workers: int) -> Floats:
    """Return the expected distance to the least loss after each step, of the mean of workers that start at 0.

    By eigendirection of the common Hessian: start^2 prod (1 - gamma_t h)^2 + (1/P) sum_t gamma_t^2 s^2 prod_(u > t)
    (1 - gamma_u h)^2, weighed by h / 2. s^2 is the variance of a sample's gradient at the optimum (additive noise).
    """
    best, _ = least_loss(x, y)
    h, directions = np.linalg.eigh(x.T @ x / len(x))
    variance = np.square(x @ directions).T @ np.square(x @ best - y) / len(x)
    bias, noise, found = np.square(directions.T @ best), np.zeros_like(variance), []
    for rate in rates:
        shrink = np.square(1 - rate * h)[:, None]
        bias, noise = shrink * bias, shrink * noise + rate**2 * variance / workers
        found.append(0.5 * float((h[:, None] * (bias + noise)).sum()))
    return np.array(found)


def thinned(num: int) -> list[int]:
    """Return which of `num` points are drawn."""
    return sorted({round(place) - 1 for place in np.geomspace(1, num, POINTS)})


def figure(folder: Path) -> go.Figure:
    """Return the figure of a run folder."""
    results, experiment = hsgd_emu.read(folder), load_experiment(folder / "run.yaml")
    x, y = training_set()
    squared = experiment.train.loss == "squared"
    least = least_loss(x, y)[1] if squared else 0.0
    curve = results.curve.groupby(["case", "round", "iteration"], sort=False).training_set_loss.median().reset_index()
    rates = {case.name: experiment.alone(case.name).train.learning_rate for case in experiment.cases}
    alphas = sorted({rate.exponent for rate in rates.values()})
    titles = [f"step sizes {next(iter(rates.values())).initial:g} t^-{alpha:g}" for alpha in alphas]
    drawn = make_subplots(2, len(alphas), shared_yaxes=True, subplot_titles=titles, vertical_spacing=0.14)
    for column, alpha in enumerate(alphas, 1):
        names = [name for name, rate in rates.items() if rate.exponent == alpha]
        for name, colour in zip(names, COLOURS, strict=True):
            rows = curve[curve.case == name]
            rows = rows.iloc[thinned(len(rows))]
            look = {"name": name.removesuffix(f" {alpha:g}"), "legendgroup": colour, "mode": "lines+markers"}
            for row, axis in enumerate((rows["round"], rows.iteration), 1):
                line = go.Scatter(x=axis, y=rows.training_set_loss - least, line_color=colour, marker_size=4, **look)
                drawn.add_trace(line.update(showlegend=column == row == 1), row, column)
        if squared:
            steps = np.arange(1, experiment.train.iterations + 1)
            initial = next(rate.initial for rate in rates.values())
            expected, shown = law(x, y, initial * steps**-alpha, len(experiment.topology.workers)), thinned(len(steps))
            line = go.Scatter(x=steps[shown], y=expected[shown], line={"color": "black", "dash": "dash"}, name="law")
            drawn.add_trace(line.update(showlegend=column == 1, mode="lines"), 2, column)
        drawn.update_xaxes(type="log", title="global aggregations", row=1, col=column)
        drawn.update_xaxes(type="log", title="iterations", row=2, col=column)
    drawn.update_yaxes(type="log")
    drawn.update_yaxes(title="training loss - least loss" if squared else "training loss", col=1)
    return drawn.update_layout(template="plotly_white", width=1000, height=640, margin={"t": 40, "r": 10})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path)
    parser.add_argument("image", type=Path, help="*.svg or *.png")
    args = parser.parse_args()
    figure(args.run_folder).write_image(args.image)


if __name__ == "__main__":
    main()
