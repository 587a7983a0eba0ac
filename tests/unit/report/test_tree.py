"""The network's picture: what links are expected to cost, by hand, and which nodes are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from oracle.drive import experiment_of, run_data

from hsgd_emu.report.content import Content, gather
from hsgd_emu.report.figure import Figure
from hsgd_emu.report.looks import shortened
from hsgd_emu.report.outline import duration, outline, rest_label
from hsgd_emu.report.tree import MOST_FURTHER, MOST_PLACES, network
from hsgd_emu.run import Options, run_experiment

HOSTILE = "<a href='x'>b & %{y} " + "long " * 12 + "name"
CASES = [{"name": "P=2", "period": 2}]


def two_levels(sites: int = 2, workers: int = 5, **more: Any) -> dict[str, Any]:
    levels = [{"name": "site", "count": sites, "uplink": "far"}, {"name": "worker", "count": workers, "uplink": "near"}]
    return {"topology": {"levels": levels, **more}, "profiles": {"near": NEAR, "far": FAR}}


# 1,000 bytes up: 0.01 + 8,000 / 1e6 = 0.018 s, down: 0.01 + 8,000 / 4e6 = 0.012 s.
NEAR = {"latency_s": 0.01, "bandwidth_bps": {"up": 1e6, "down": 4e6}, "model": "raw", "source": "a <guess>"}
FAR = {"rtt_s": {"distribution": "uniform", "low": 0.1, "high": 0.3}, "up_share": 0.75}


def run_of(folder: Path, topology: dict[str, Any], profiles: dict[str, Any] | None = None, **more: Any) -> Path:
    data = run_data(topology, CASES, 2, compute=0.004, profiles=profiles)
    experiment = experiment_of({**data, "message_bytes": 1000, "targets": {}, "seeds": [1], **more})
    return run_experiment(experiment, folder, Options(timing_only=True))


def figure_of(*folders: Path) -> Figure:
    with gather(folders) as content:
        figure = network(content)
    assert figure is not None
    for picture in figure.pictures:
        figure.plotly(picture.key)  # checks every attribute
    return figure


def drawn(tmp_path: Path, topology: dict[str, Any], profiles: dict[str, Any] | None = None, **more: Any) -> Figure:
    return figure_of(run_of(tmp_path / "run", topology, profiles, **more))


def rows_of(figure: Figure) -> list[dict[str, Any]]:
    columns = {column.name: column.values for column in figure.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def labels_of(figure: Figure) -> dict[str, tuple[float, float]]:
    return {label["text"]: (label["x"], label["y"]) for label in figure.pictures[0].layout["annotations"]}


def texts_of(figure: Figure) -> str:
    return " ".join(text for trace in figure.pictures[0].traces for text in trace.get("text", ()))


def dashed(figure: Figure) -> int:
    return sum(trace.get("line", {}).get("dash") == "4px,4px" for trace in figure.pictures[0].traces)


def test_says_how_many_nodes_there_are_and_what_round_trips_cost(tmp_path: Path) -> None:
    figure = drawn(tmp_path, **two_levels(links=[{"between": ["worker", "root"], "profile": "far"}]))
    # Near: 0.018 + 0.012 = 30 ms; far: the mean of 0.1 to 0.3 s.
    assert figure.pictures[0].text == (
        "10 workers in 2 groups behind 2 local servers; a round trip is expected to take 30.0 ms from worker to site "
        "(near) and 200 ms from site to root (far); beside the tree there are 10 links from worker to root (far, 200 "
        "ms)."
    )
    assert [label for label, _ in figure.key] == [
        "far: 200 ms RTT expected",
        "near: 30.0 ms RTT expected",
        "server",
        "worker",
    ]


def test_data_have_every_node_with_its_costs_by_hand(tmp_path: Path) -> None:
    levels = two_levels()
    levels["topology"]["levels"][0]["aggregation_s"] = 0.5
    rows = rows_of(drawn(tmp_path, **levels))
    assert [row["node"] for row in rows] == [
        "root",
        "site-0",
        *(f"worker-{i}" for i in range(5)),
        "site-1",
        *(f"worker-{i}" for i in range(5, 10)),
    ]
    root, site, worker = rows[:3]
    assert (root["kind"], root["parent"], root["expected_up_s"], root["aggregation_s"]) == (
        "global server",
        None,
        None,
        0,
    )
    assert (site["link"], site["profile"], site["aggregation_s"]) == ("site-0--root", "far", 0.5)
    assert (site["expected_up_s"], site["expected_down_s"]) == pytest.approx((0.75 * 0.2, 0.25 * 0.2))
    assert (worker["expected_up_s"], worker["expected_down_s"]) == pytest.approx((0.018, 0.012))
    assert (worker["step_s"], worker["level"], worker["class"], worker["parent"]) == (0.004, 2, "worker", "site-0")


def test_children_stand_at_the_right_of_their_server_which_is_in_their_middle(tmp_path: Path) -> None:
    at = labels_of(drawn(tmp_path, **two_levels()))
    assert [at[f"worker-{i}"][1] for i in range(5)] == [0, 1, 2, 3, 4]
    # The second group begins below a gap of half a row.
    assert [at[f"worker-{i}"][1] for i in range(5, 10)] == [5.5, 6.5, 7.5, 8.5, 9.5]
    assert at["site-0"] == (1, 2)
    assert at["root"] == (0, (2 + 7.5) / 2)
    assert {at[f"worker-{i}"][0] for i in range(10)} == {2}


def test_workers_of_an_uneven_tree_stand_in_one_column(tmp_path: Path) -> None:
    site = {"name": "site", "uplink": {"rtt_s": 1}, "children": [{"name": "w", "count": 2, "uplink": {"rtt_s": 2}}]}
    figure = drawn(tmp_path, {"root": {"children": [site, {"name": "lone", "uplink": {"rtt_s": 1}}]}})
    at = labels_of(figure)
    assert at["lone"][0] == at["w-0"][0] == 2
    assert figure.pictures[0].text == (
        "2 workers in 1 group behind 1 local server and 1 directly at the global server; a round trip is expected to "
        "take 2.00 s from w to site, 1.00 s from site to root and 1.00 s from lone to root."
    )
    assert figure.key[0][0] == "1.00 s RTT expected"


def test_one_level_and_three(tmp_path: Path) -> None:
    one = drawn(tmp_path, {"levels": [{"name": "w", "count": 1, "uplink": {"rtt_s": 1}}]})
    assert one.pictures[0].text.startswith("1 worker directly at the global server; ")
    levels = [{"name": name, "count": 2, "uplink": {"rtt_s": 1}} for name in ("region", "site", "w")]
    three = figure_of(run_of(tmp_path / "three", {"levels": levels}))
    assert three.pictures[0].text.startswith("8 workers in 4 groups behind 6 local servers on 2 levels; ")


def test_a_node_without_an_uplink_is_drawn_and_says_so(tmp_path: Path) -> None:
    topology = {"levels": [{"name": "w", "count": 2}], "links": [{"between": ["w-0", "w-1"], "profile": {"rtt_s": 1}}]}
    topology["links"].append({"between": ["root", "w-0"], "profile": {"rtt_s": 1}})
    topology["routing"] = "least_cost"
    figure = drawn(tmp_path, topology)
    assert "no link to its parent" in texts_of(figure)
    assert [row["link"] for row in rows_of(figure)] == [None, None, None, "w-0--w-1", "root--w-0"]
    assert figure.pictures[0].text == (
        "2 workers directly at the global server; beside the tree there is 1 link from w to w (1.00 s) "
        "and 1 link from root to w (1.00 s)."
    )


def test_few_links_beside_the_tree_are_drawn_and_many_are_not(tmp_path: Path) -> None:
    links = [{"between": ["worker", "root"], "profile": "far"}]
    few = drawn(tmp_path, **two_levels(2, MOST_FURTHER // 2, links=links))
    assert dashed(few) == MOST_FURTHER
    assert "Dashed: links beside the tree." in few.note
    many = figure_of(run_of(tmp_path / "many", **two_levels(2, MOST_FURTHER, links=links)))
    assert dashed(many) == 0
    assert "in the data only" in many.note
    assert sum(row["kind"] == "further link" for row in rows_of(many)) == 2 * MOST_FURTHER


def test_of_thousands_of_workers_the_first_are_drawn_and_the_rest_counted(tmp_path: Path) -> None:
    figure = drawn(tmp_path, **two_levels(5, 1000, links=[{"between": ["worker", "root"], "profile": "far"}]))
    labels = labels_of(figure)
    assert len(labels) <= MOST_PLACES
    # 1 root, 5 sites, and for each site k workers and a row for the rest: 6 + 5 (k + 1) <= 46, k = 7.
    assert sum(name.startswith("worker-") for name in labels) == 35
    assert "… 993 more worker" in labels
    assert len(figure.as_json()) < 50_000
    assert figure.height_px <= 900
    # 5,006 nodes and 5,000 links beside the tree: what is alike is one row.
    assert [(row["class"], row["num"], row["kind"]) for row in rows_of(figure)] == [
        ("root", 1, "global server"),
        ("site", 5, "local server"),
        ("worker", 5000, "worker"),
        ("worker", 5000, "further link"),
    ]


@pytest.mark.parametrize("counts", [(400, 3), (40, 40), (1, 1999)])
def test_a_wide_tree_has_few_rows(tmp_path: Path, counts: tuple[int, int]) -> None:
    figure = drawn(tmp_path, **two_levels(*counts))
    assert len(figure.pictures[0].layout["annotations"]) <= MOST_PLACES
    assert "Of each server the first children are drawn" in figure.note


def test_runs_on_one_network_share_a_picture_and_others_have_their_own(tmp_path: Path) -> None:
    one = run_of(tmp_path / "one", **two_levels(), name="one")
    two = run_of(tmp_path / "two", **two_levels(), name="two", cases=[{"name": "P=1", "period": 1}])
    assert figure_of(one, two).switches == ()
    other = two_levels()
    other["profiles"] = {**other["profiles"], "far": {"rtt_s": 3}}
    figure = figure_of(one, two, run_of(tmp_path / "three", **other, name="three"))
    assert figure.switches[0].options == (("0", "one and two"), ("1", "three"))
    assert figure.key[0][0] == "far: 200 ms or 3.00 s RTT expected"
    assert [row["run"] for row in rows_of(figure)] == ["one and two"] * 13 + ["three"] * 13


def test_a_run_that_cannot_be_read_has_no_network() -> None:
    assert network(Content((), ())) is None


def test_hostile_names_are_shown_literally_and_shortened(tmp_path: Path) -> None:
    site = {"name": HOSTILE, "uplink": "p", "children": [{"name": "<b>w", "count": 2, "uplink": {"rtt_s": 1}}]}
    profiles = {"p": {"rtt_s": 1, "description": HOSTILE, "source": "<i>" * 200}}
    figure = drawn(tmp_path, {"root": {"children": [site]}}, profiles)
    shown = texts_of(figure) + "".join(labels_of(figure))
    for markup in ("<a", "<i", "<b>w"):
        assert markup not in shown
    assert "&lt;b&gt;w-0" in labels_of(figure)
    assert "&lt;a href='x'&gt;b &amp; " in shown
    assert all(len(label) < 60 for label in labels_of(figure))
    assert all("%{y}" not in trace.get("hovertemplate", "") for trace in figure.pictures[0].traces)
    assert rows_of(figure)[1]["node"] == HOSTILE


# --- the outline ------------------------------------------------------------------------------------


def shown(children: dict[str, list[str]], most: int) -> list[str]:
    def class_of(name: str) -> str:
        return name.rstrip("0123456789")

    places = outline("root", lambda node: children.get(node, []), class_of, most)
    return [rest_label(place.rest, class_of) if place.rest else place.node for place in places]


def test_outline_is_depth_first_and_as_much_as_fits() -> None:
    tree = {"root": ["a", "b"], "a": ["u0", "u1", "u2", "u3"], "b": ["v0"]}
    assert shown(tree, 8) == ["root", "a", "u0", "u1", "u2", "u3", "b", "v0"]
    # One row less: two of each server's children and a row for the rest make 1 + 2 + (2 + 1) + 1 = 7.
    assert shown(tree, 7) == ["root", "a", "u0", "u1", "… 2 more u", "b", "v0"]


def test_outline_shows_the_first_of_each_class() -> None:
    # The slow one is the last, and still among the first two.
    assert shown({"root": [*(f"w{i}" for i in range(9)), "slow0"]}, 4) == ["root", "w0", "slow0", "… 8 more w"]


def test_outline_of_a_chain_shows_at_least_one_child_of_each() -> None:
    tree = {f"n{i}": [f"n{i + 1}", "x", "y"] for i in range(20)}
    assert len(shown({"root": ["n0"], **tree}, 5)) == 1 + 1 + 2 * 20


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (2.314, "2.31 s"),
        (0.0186, "18.6 ms"),
        (0.99999, "1.00 s"),
        (2.45e-5, "24.5 µs"),
        (1234.5, "1,234 s"),
    ],
)
def test_durations_have_three_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_names_are_shortened_in_the_middle() -> None:
    assert shortened("worker-12", 9) == "worker-12"
    assert shortened("a_very_long_worker-12", 9) == "a_ve…r-12"
