"""Bytes and utilisation of the links, by hand and against what a run wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hsgd_emu.experiment import Experiment
from hsgd_emu.report.content import gather
from hsgd_emu.report.figure import Figure
from hsgd_emu.report.links import each_link, links
from hsgd_emu.run import Options, run_experiment
from tests.unit.report.test_time_spent import HOSTILE, drawn, table
from tests.unit.report.test_traffic import described, sites, timed

CASES = [{"name": "P=5", "period": 5}, {"name": "G=10 I=5", "periods": [10, 5]}]


def figures(experiment: Experiment, folder: Path) -> tuple[Figure, Figure | None]:
    with gather([timed(experiment, folder)]) as content:
        by_class, single = links(content), each_link(content)
    assert by_class is not None
    for figure in (by_class, single):
        if figure is not None:
            drawn(figure)
    return by_class, single


def rows(figure: Figure) -> dict[tuple[str, str], dict[str, Any]]:
    return {(found["case"], found["link"]): found for found in table(figure)}


def test_bytes_and_utilisation_by_hand(tmp_path: Path) -> None:
    """Near 0.25 up and 0.5 down, far 3 and 1, direct 4.5 there and back; steps of 1 s, messages of 1,000 bytes.

    P=5: 4 rounds of 5 + 4.5 s, each worker one exchange a round over its direct link: busy 4.5 of 9.5 s.
    G=10 I=5: 2 rounds of 5 + 0.75 + 5 + 0.25 + 4 + 0.5 = 15.5 s, two near exchanges and a far one each.
    """
    by_class, single = figures(described(sites(2, 1, further=True), CASES, 20), tmp_path / "run")
    found = rows(by_class)
    direct = found["P=5", "w to root: RTT 4.500 s"]
    assert (direct["num_links"], direct["num_messages"], direct["bytes"]) == (3, 3 * 2 * 4, 24_000)
    assert (direct["busy_share"], direct["most_busy_share"]) == (pytest.approx(9 / 19), pytest.approx(9 / 19))
    near = found["G=10 I=5", "w to site0: RTT 0.7500 s"]
    assert (near["num_links"], near["bytes"], near["busy_share"]) == (2, 16_000, pytest.approx(1.5 / 15.5))
    far = found["G=10 I=5", "site0 to root: RTT 4.000 s"]
    assert (far["num_links"], far["bytes"], far["busy_share"]) == (1, 4_000, pytest.approx(4 / 15.5))
    assert ("P=5", "site0 to root: RTT 4.000 s") not in found
    assert by_class.pictures[0].text == (
        "G=10 I=5 sends 32.0 kB over all links, P=5 24.0 kB; over the links of the global server, "
        "P=5 sends 24.0 kB, 3.0 times as much as G=10 I=5."
    )
    assert by_class.pictures[1].text == (
        "Busiest is w-0--root (and 2 alike) in P=5, 47% of the time; elsewhere the busiest link is at 26% in G=10 I=5."
    )
    assert "private" in by_class.note
    assert single is not None
    assert rows(single)["P=5", "w-0--root"]["bytes"] == 8_000
    assert rows(single)["G=10 I=5", "site0--root"]["busy_share"] == pytest.approx(4 / 15.5)
    assert sum(found["bytes"] for found in table(single)) == sum(found["bytes"] for found in table(by_class)) == 56_000


def test_totals_are_those_of_the_curves(tmp_path: Path) -> None:
    # Random links, and a part of the workers: expected on each link, certain in all.
    near = {"rtt_s": {"distribution": "lognormal", "median": 0.3, "sigma": 0.5}}
    cases = [{"name": "half", "periods": [10, 5], "participation": 0.5}]
    with gather([timed(described(sites(3, 3, near=near), cases, 20, seeds=(1, 2)), tmp_path)]) as content:
        figure = links(content)
        num_bytes = content.cases[0].points[-1].num_bytes
    assert figure is not None
    drawn(figure)
    # Two of three upload (round(1.5) is 2), all download: 4 periods x 2 sites x 5, and 2 rounds x 2 sites x 2.
    assert sum(found["bytes"] for found in table(figure)) == num_bytes == (40 + 8) * 1000
    single = next(found for found in table(figure) if found["link"].startswith("w to site0"))
    assert single["num_messages"] == 20


def test_the_busiest_of_unlike_links_of_a_class(tmp_path: Path) -> None:
    # site1's one worker uses its link as often as site0's two, but it aggregates every 10 iterations, not every 5.
    topology = {"levels": [{"name": name, "count": 2, "uplink": {"rtt_s": 1}} for name in ("site", "w")]}
    cases = [{"name": "c", "periods": {"root": 10, "site-0": 5, "site-1": 10}}]
    figure, _ = figures(described(topology, cases, 10), tmp_path)
    (near,) = [found for found in table(figure) if found["link"] == "w to site: RTT 1.000 s"]
    # 5 + 1 + 5 + 0.5 + 1 + 0.5 = 13 s; exchanges of 1 s: 2 at site-0, 1 at site-1.
    assert (near["busy_share"], near["most_busy_share"]) == (pytest.approx(1.5 / 13), pytest.approx(2 / 13))
    assert near["busiest_link"] == "w-0--site-0"


def test_several_messages_at_once_are_more_than_all_the_time(tmp_path: Path) -> None:
    # Five workers' messages cross the site's link at once: 5 x 40 s in 5 + 40.75 s.
    figure, _ = figures(described(sites(5, far={"rtt_s": 40}), [{"name": "c", "period": 5}], 10), tmp_path)
    (far,) = [found for found in table(figure) if found["link"].startswith("site0")]
    assert far["busy_share"] == pytest.approx(200 / 45.75)
    assert "437% of the time (several messages at once)" in figure.pictures[1].text


def test_thousands_of_links_make_a_small_figure(tmp_path: Path) -> None:
    figure, single = figures(described(sites(*[50] * 20), [{"name": "c", "periods": [10, 5]}], 10), tmp_path / "run")
    assert single is None
    # Each site is written out, so that there would be 40 classes: the profiles alone tell them apart.
    assert [(found["link"], found["num_links"]) for found in table(figure)] == [
        ("RTT 4.000 s", 20),
        ("RTT 0.7500 s", 1000),
    ]
    assert len(figure.as_json()) < 5_000


def test_many_profiles_are_summed_up(tmp_path: Path) -> None:
    children = [{"name": f"w{i}", "uplink": {"rtt_s": 1 + i}} for i in range(30)]
    figure, _ = figures(described({"root": {"children": children}}, [{"name": "c", "period": 5}], 10), tmp_path / "run")
    *_, last, others = table(figure)
    assert (last["link"], last["profile"], others["link"]) == ("RTT 9.000 s", "RTT 9.000 s", "other links")
    assert (others["profile"], others["num_links"], others["bytes"]) == ("several", 21, 21 * 4000)
    assert len(figure.key) == 10


def test_an_unfinished_run_counts_what_was_sent(tmp_path: Path) -> None:
    experiment = described(sites(2, 1), [{"name": "c", "periods": [10, 5]}], 100)
    with gather([run_experiment(experiment, tmp_path, Options(timing_only=True, stop_at=30))]) as content:
        figure = links(content)
    assert figure is not None
    assert sum(found["bytes"] for found in table(figure)) == 3 * 16_000


def test_one_worker(tmp_path: Path) -> None:
    topology = {"root": {"children": [{"name": "w", "uplink": {"rtt_s": 1}}]}}
    figure, single = figures(described(topology, [{"name": "c", "period": 5}], 10), tmp_path)
    assert figure.pictures[0].text == (
        "c sends 4.00 kB over all links; over the links of the global server, c sends 4.00 kB."
    )
    assert single is not None


def test_no_time_at_all(tmp_path: Path) -> None:
    # Everything is free: emulated time stands still, and nothing is busy.
    topology = {"root": {"children": [{"name": "w", "uplink": {"rtt_s": 0}, "compute": {"step_s": 0}}]}}
    figure, _ = figures(described(topology, [{"name": "c", "period": 5}], 10), tmp_path)
    assert [found["busy_share"] for found in table(figure)] == [0]


def test_hostile_names_are_shown_literally(tmp_path: Path) -> None:
    name = '<b>x & "q" %{y}'
    topology = {"root": {"children": [{"name": name, "count": 2, "uplink": {"rtt_s": 1}}]}}
    figure, single = figures(described(topology, [{"name": HOSTILE, "period": 5}], 10), tmp_path)
    assert single is not None
    for picture in (*figure.pictures, *single.pictures):
        shown = str(picture.traces) + str(picture.layout)
        assert "<b>x" not in shown
        assert "<b>bold" not in shown


def test_a_run_whose_network_cannot_be_read_has_no_links(tmp_path: Path) -> None:
    folder = timed(described(sites(2), [{"name": "c", "periods": [10, 5]}], 10), tmp_path)
    (folder / "run.yaml").write_text("name: old\nwhat: is this\ncases:\n  - {name: c, period: 5}\n", encoding="utf-8")
    with gather([folder]) as content:
        assert links(content) is None
        assert each_link(content) is None
