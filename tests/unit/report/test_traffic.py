"""What is sent over each link, by hand and against every row that a run wrote."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from oracle.drive import experiment_of, run_data

from hsgd_emu.config.schema import LinkProfile
from hsgd_emu.experiment import Experiment
from hsgd_emu.report.content import Content, gather
from hsgd_emu.report.traffic import LinkTraffic, Traffic, bytes_in_words, traffic_of
from hsgd_emu.run import Options, run_experiment
from hsgd_emu.timing.transfers import Message, transfer_of

MESSAGE_BYTES = 1000
NEAR = {"up_s": 0.25, "down_s": 0.5}
FAR = {"rtt_s": 4, "up_share": 0.75}


def sites(*counts: int, further: bool = False, near: Any = None, far: Any = None) -> dict[str, Any]:
    """Sites of so many workers, each over NEAR, the sites over FAR; further: also links from workers to the root."""
    children = [
        {
            "name": f"site{number}",
            "uplink": far or FAR,
            "children": [{"name": "w", "count": count, "uplink": near or NEAR}],
        }
        for number, count in enumerate(counts)
    ]
    topology: dict[str, Any] = {"root": {"children": children}}
    if further:
        topology["links"] = [{"between": ["w", "root"], "profile": {"rtt_s": 4.5}}]
    return topology


def levels(*names: str) -> dict[str, Any]:
    return {"levels": [{"name": name, "count": 2, "uplink": {"rtt_s": 1}} for name in names]}


def described(
    topology: dict[str, Any], cases: list[dict[str, Any]], iterations: int, seeds: tuple[int, ...] = (1,), **more: Any
) -> Experiment:
    data = run_data(topology, cases, iterations, compute=1)
    defaults = {"message_bytes": MESSAGE_BYTES, "timeline": "full", "targets": {}, "seeds": list(seeds)}
    return experiment_of({**data, **defaults, **more})


def timed(experiment: Experiment, folder: Path) -> Path:
    """Run on the clock only."""
    return run_experiment(experiment, folder, Options(timing_only=True))


def traffic(experiment: Experiment, case: int = 0) -> Traffic:
    return traffic_of(experiment, experiment.schedules[case], MESSAGE_BYTES)


def in_a_round(found: Traffic) -> tuple[LinkTraffic, ...]:
    return found.links_until(found.schedule.end_of(1))


def round_bytes(found: Traffic) -> int:
    return found.bytes_until(found.schedule.end_of(1))


def of_link(found: Traffic, name: str) -> LinkTraffic:
    return next(link for link in in_a_round(found) if link.link == name)


def test_two_levels_by_hand() -> None:
    # G=10, I=5: two exchanges of each worker and one of each site in a global period.
    found = traffic(described(sites(2, 1), [{"name": "c", "periods": [10, 5]}], 10))
    assert of_link(found, "w-0--site0") == LinkTraffic(
        "w-0--site0",
        "RTT 0.7500 s",
        num_up=2,
        num_down=2,
        busy_s=2 * 0.25 + 2 * 0.5,
        num_bytes=4_000,
        ends=("w", "site0"),
    )
    assert of_link(found, "site0--root") == LinkTraffic(
        "site0--root", "RTT 4.000 s", num_up=1, num_down=1, busy_s=4, num_bytes=2_000, ends=("site0", "root")
    )
    assert [link.link for link in in_a_round(found)] == [
        "site0--root", "w-0--site0", "w-1--site0", "site1--root", "w-2--site1"
    ]  # fmt: skip
    assert sum(link.num_messages for link in in_a_round(found)) == 3 * 4 + 2 * 2
    assert round_bytes(found) == 16_000
    assert found.bytes_until(30) == 48_000


def test_a_route_over_two_links_counts_on_both() -> None:
    # Local SGD without a direct link: each worker's model crosses its site's link too.
    found = traffic(described(sites(2, 1), [{"name": "c", "period": 5}], 10))
    assert (of_link(found, "site0--root").num_up, of_link(found, "w-0--site0").num_up) == (2, 1)
    assert round_bytes(found) == 3 * 2 * 2 * MESSAGE_BYTES


def test_direct_links_are_taken_where_they_are_cheaper() -> None:
    found = traffic(described(sites(2, 1, further=True), [{"name": "c", "period": 5}], 10))
    assert [link.link for link in in_a_round(found)] == ["w-0--root", "w-1--root", "w-2--root"]
    assert round_bytes(found) == 3 * 2 * MESSAGE_BYTES


def test_a_link_travelled_backwards_has_the_uploads_towards_its_lower_end() -> None:
    # The further links are written from the root to the workers: their `up` leads away from the server.
    topology: dict[str, Any] = {"root": {"children": [{"name": "w", "count": 2, "uplink": {"rtt_s": 100}}]}}
    topology["links"] = [{"between": ["root", "w"], "profile": {"up_s": 1, "down_s": 2}}]
    # One of two workers uploads, both download: 1 s down to each, 2 s up for half of them.
    link, _ = in_a_round(traffic(described(topology, [{"name": "c", "period": 5, "participation": 0.5}], 10)))
    assert (link.link, link.num_up, link.num_down, link.busy_s) == ("root--w-0", 1, 0.5, 2)


def test_who_sits_out_uploads_nothing_and_receives_everything() -> None:
    # max(1, round(0.5 x 3)) = 2 of 3 workers upload in each of two periods, all three receive in both.
    cases = [{"name": "c", "periods": [10, 5], "participation": 0.5}]
    found = traffic(described(sites(3), cases, 10))
    link = of_link(found, "w-0--site0")
    assert (link.num_up, link.num_down) == (pytest.approx(4 / 3), 2)
    assert link.busy_s == pytest.approx(4 / 3 * 0.25 + 2 * 0.5)
    # The site itself always takes part.
    assert (of_link(found, "site0--root").num_up, round_bytes(found)) == (1, (4 + 6 + 2) * MESSAGE_BYTES)


THREE = [{"name": "three", "periods": [20, 10, 5]}, {"name": "without", "periods": [20, "none", 5]}]
UNEVEN = {"root": 20, "site0": 5, "site1": 10}
NAMED = [
    pytest.param(sites(2, 3), [{"name": "two", "periods": [10, 5]}, {"name": "P", "period": 5}], id="two levels"),
    pytest.param(levels("region", "site", "w"), THREE, id="three levels"),
    pytest.param(sites(2, 3, further=True), [{"name": "P", "period": 5}], id="direct links"),
    pytest.param(sites(2, 3), [{"name": "uneven", "periods": UNEVEN}], id="uneven periods"),
    pytest.param(
        sites(4, 3),
        [{"name": "few", "periods": [10, 5], "participation": 0.4}, {"name": "P", "period": 5, "participation": 0.1}],
        id="participation",
    ),
    pytest.param(sites(1), [{"name": "one", "periods": [5, 5]}], id="one worker"),
]


@pytest.mark.parametrize(("topology", "cases"), NAMED)
def test_bytes_and_seconds_are_those_of_the_timeline(
    topology: dict[str, Any], cases: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Every upload and download that a run wrote, counted on each link of its route: bytes, messages and seconds."""
    experiment = described(topology, cases, 40)
    with gather([timed(experiment, tmp_path / "run")]) as content:
        for case, schedule in zip(content.cases, experiment.schedules, strict=True):
            assert case.traffic is not None
            for point in case.points:
                rows = messages(content, case.own_name, point.iteration)
                routes = experiment.routes(schedule, MESSAGE_BYTES)
                names = {experiment.topology.nodes[n].name: r for (n, _), r in routes.items()}
                sent = sum(num * MESSAGE_BYTES * len(names[node]) for (node, _), (num, _) in rows.items())
                assert case.traffic.bytes_until(point.iteration) == sent == point.num_bytes
            end = case.points[-1].iteration
            links = case.traffic.links_until(end)
            per_link: Counter[str] = Counter()
            for (node, _), (num, _) in messages(content, case.own_name, end).items():
                per_link.update({hop.link.name: num for hop in names[node]})
            if schedule.participation == 1:
                assert {x.link: x.num_messages for x in links} == per_link
                busy_s = sum(seconds for _, seconds in messages(content, case.own_name, end).values())
                assert sum(x.busy_s for x in links) == pytest.approx(busy_s)
            else:
                assert sum(x.num_messages for x in links) == pytest.approx(sum(per_link.values()))


def messages(content: Content, case: str, iteration: int) -> dict[tuple[str, str], tuple[int, float]]:
    """Return number and seconds of the messages until an iteration by (node, kind), as the timeline has them."""
    rows = content.runs[0].connection.execute(
        'SELECT node, kind, count(*), sum(end_s - start_s) FROM timeline WHERE "case" = ? AND iteration <= ? '
        "AND kind IN ('upload', 'download') GROUP BY node, kind",
        (case, iteration),
    )
    return {(node, kind): (num, seconds) for node, kind, num, seconds in rows}


def test_routes_of_unlike_lengths_with_part_of_the_workers_are_an_expectation() -> None:
    # Of two workers one uploads: v over its spare path, w over three links, for v's is the cheapest way for it too.
    # Down go 4 x 1,000 bytes, up 1 or 3 x 1,000.
    topology = sites(1)
    topology["root"]["children"][0]["children"].append({"name": "v", "uplink": NEAR})
    topology["links"] = [{"between": ["v", "root"], "profile": {"rtt_s": 1}}]
    topology["routing"] = "least_cost"
    found = traffic(described(topology, [{"name": "c", "period": 5, "participation": 0.5}], 10))
    assert round_bytes(found) == 6_000
    assert found.bytes_until(10) == 12_000


@pytest.mark.parametrize(
    ("profile", "up_s", "down_s"),
    [
        ({"rtt_s": 4, "up_share": 0.25}, 1, 3),
        ({"rtt_s": {"samples": [1, 2, 6]}}, 1.5, 1.5),
        ({"up_s": {"distribution": "gamma", "shape": 2, "scale": 3}, "down_s": 1}, 6, 1),
        # 8 x 1,000 bits at 8,000 and 4,000 bit/s: 1 s and 2 s, on top of a latency of 0.5 s on average.
        (
            {
                "latency_s": {"distribution": "uniform", "low": 0, "high": 1},
                "bandwidth_bps": {"up": 8000, "down": 4000},
                "model": "raw",
            },
            1.5,
            2.5,
        ),
        ({"latency_s": 0.5, "bandwidth_bps": 8000, "model": "raw"}, 1.5, 1.5),
        # A heavy tail's mean is beyond what the clock takes (1e9 s); a report must stand it.
        ({"rtt_s": {"distribution": "lognormal", "median": 1, "sigma": 10}}, 2.592352764e21, 2.592352764e21),
    ],
)
def test_expected_seconds_of_each_form_of_a_profile(profile: dict[str, Any], up_s: float, down_s: float) -> None:
    transfer = transfer_of(LinkProfile.model_validate(profile))
    assert transfer.expected_s(Message(1000)) == (pytest.approx(up_s), pytest.approx(down_s))


def test_thousands_of_workers_take_no_time() -> None:
    found = traffic(described(sites(*[100] * 40), [{"name": "c", "periods": [10, 5]}], 10))
    assert (len(in_a_round(found)), round_bytes(found)) == (4040, (4000 * 4 + 40 * 2) * MESSAGE_BYTES)


@pytest.mark.parametrize(
    ("num", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (4_850_000, "4.85 MB"),
        (480e6, "480 MB"),
        # Three digits would make 1,000 MB of it.
        (999_900_000, "1.00 GB"),
        (12.3e12, "12,300 GB"),
    ],
)
def test_bytes_in_words(num: float, text: str) -> None:
    assert bytes_in_words(num) == text
