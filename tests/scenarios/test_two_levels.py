"""Two levels by hand: every row, barrier and wait. Times in microseconds."""

from __future__ import annotations

from oracle.drive import assert_engine_is_recursion, barriers_of, engine, experiment_of, rows_of, waits_of

MS, S = 1_000, 1_000_000
NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000

EVEN = """
name: even
topology:
  levels:
    - {name: site, count: 2, uplink: {rtt_s: 0.1}}
    - {name: worker, count: 2, uplink: {rtt_s: 0.01}}
compute: {step_s: 0.004}
model: softmax_regression
train: {iterations: 8}
cases: [{name: "G=4 I=2", periods: [4, 2]}]
"""


def test_two_levels_row_by_row() -> None:
    # 2 steps of 4 ms = 8; up 5 -> the site has both models at 13; down 5 -> 18. The second local period ends 18 later,
    # at 31, and goes up 50 -> 81 instead; down 50 -> 131, passed on at once, down 5 -> 136.
    experiment = experiment_of(EVEN)
    first, second = assert_engine_is_recursion(experiment)
    assert rows_of(experiment, first, "worker-0") == [
        ("worker-0", "compute", 0, 8 * MS, ""),
        ("worker-0", "upload", 8 * MS, 13 * MS, "site-0"),
        ("worker-0", "download", 13 * MS, 18 * MS, "site-0"),
        ("worker-0", "compute", 18 * MS, 26 * MS, ""),
        ("worker-0", "upload", 26 * MS, 31 * MS, "site-0"),
        ("worker-0", "wait", 31 * MS, 131 * MS, "site-0"),
        ("worker-0", "download", 131 * MS, 136 * MS, "site-0"),
    ]
    assert rows_of(experiment, first, "site-1", "root") == [
        ("site-1", "aggregate", 13 * MS, 13 * MS, "worker-2"),
        ("site-1", "aggregate", 31 * MS, 31 * MS, "worker-2"),
        ("site-1", "upload", 31 * MS, 81 * MS, "root"),
        ("root", "aggregate", 81 * MS, 81 * MS, "site-0"),
        ("site-1", "download", 81 * MS, 131 * MS, "root"),
    ]
    assert (first.time_ns, first.aggregated_ns) == (136 * NS_PER_MS, 81 * NS_PER_MS)
    assert (second.time_ns, second.aggregated_ns) == (272 * NS_PER_MS, 217 * NS_PER_MS)
    assert [row.start_ns for row in second.activities] == [row.start_ns + 136 * NS_PER_MS for row in first.activities]


def test_two_levels_cost_what_the_paper_counts() -> None:
    # Four steps, two near RTTs and one far RTT per round: 4 * 4 + 2 * 10 + 100 = 136 ms, of which 16 are compute.
    records, _ = engine(experiment_of(EVEN))
    for number, record in enumerate(records, start=1):
        assert tuple(record.split) == (16 * number * NS_PER_MS, 120 * number * NS_PER_MS, 0)
        assert record.split.time_ns == record.time_ns == 136 * number * NS_PER_MS


def test_ties_blame_the_first_in_node_order() -> None:
    # All are equal: every barrier is met by everybody at once, so there is no slack and nobody waits for it.
    experiment = experiment_of(EVEN)
    record = engine(experiment)[0][0]
    assert barriers_of(experiment, record) == [
        ("site-0", 2, 13 * MS, "worker-0", "worker-0--site-0", 0),
        ("site-1", 2, 13 * MS, "worker-2", "worker-2--site-1", 0),
        ("site-0", 4, 31 * MS, "worker-0", "worker-0--site-0", 0),
        ("site-1", 4, 31 * MS, "worker-2", "worker-2--site-1", 0),
        ("root", 4, 81 * MS, "site-0", "site-0--root", 0),
    ]
    assert waits_of(experiment, record) == {f"worker-{number}": 100 * MS for number in range(4)}


PATHS = """
name: paths
topology:
  root:
    children:
      - {name: near, uplink: {up_s: 0.5, down_s: 4}, compute: {step_s: 2}}
      - {name: away, uplink: {up_s: 5, down_s: 1}, compute: {step_s: 1}}
model: softmax_regression
train: {iterations: 3}
cases: [{name: "P=3", period: 3}]
"""


def test_a_group_waits_for_its_slowest_whole_path() -> None:
    # 3 * 1 + 5 = 8 beats 3 * 2 + 0.5 = 6.5; adding the two maxima would give 11. `near` then needs 4 to receive, so
    # it holds the model last, at 12: on the critical path lie the other one's steps and upload.
    experiment = experiment_of(PATHS)
    (record,) = assert_engine_is_recursion(experiment)
    assert (record.aggregated_ns, record.time_ns) == (8 * NS_PER_S, 12 * NS_PER_S)
    assert tuple(record.split) == (3 * NS_PER_S, 9 * NS_PER_S, 0)
    assert barriers_of(experiment, record) == [("root", 3, 8 * S, "away", "away--root", 3 * S // 2)]
    assert waits_of(experiment, record) == {"root": 3 * S // 2, "near": 3 * S // 2}


UNEVEN = """
name: uneven
topology:
  root:
    children:
      - name: campus
        uplink: {rtt_s: 4}
        children:
          - {name: phone, uplink: {rtt_s: 2}, compute: {step_s: 1}}
          - {name: jetson, uplink: {rtt_s: 1}, compute: {step_s: 0.5}}
      - name: depot
        uplink: {rtt_s: 10}
        children: [{name: truck, uplink: {rtt_s: 2}, compute: {step_s: 2}}]
      - {name: lone, uplink: {rtt_s: 6}, compute: {step_s: 3}}
model: softmax_regression
train: {iterations: 4}
cases: [{name: "I differs", periods: {root: 4, campus: 2, depot: 4}}]
"""


def test_uneven_tree_with_a_period_per_group() -> None:
    # campus, I = 2: phone 2 + 1 = 3, jetson 1 + 0.5 = 1.5, ready 3; phone goes on at 4, jetson at 3.5;
    #   phone 4 + 2 + 1 = 7, jetson 3.5 + 1 + 0.5 = 5, ready 7, at the root 7 + 2 = 9.
    # depot, I = 4: truck 8 + 1 = 9, at the root 9 + 5 = 14. lone: 12 + 3 = 15, ready 15.
    # Down: lone 18; phone 15 + 2 + 1 = 18, jetson 17.5; truck 15 + 5 + 1 = 21.
    experiment = experiment_of(UNEVEN)
    (record,) = assert_engine_is_recursion(experiment)
    assert (record.aggregated_ns, record.time_ns) == (15 * NS_PER_S, 21 * NS_PER_S)
    # lone's 12 s of steps and 3 s up, then 5 + 1 s down to the truck.
    assert tuple(record.split) == (12 * NS_PER_S, 9 * NS_PER_S, 0)
    assert barriers_of(experiment, record) == [
        ("campus", 2, 3 * S, "phone", "phone--campus", 3 * S // 2),
        ("campus", 4, 7 * S, "phone", "phone--campus", 2 * S),
        ("depot", 4, 9 * S, "truck", "truck--depot", 0),
        ("root", 4, 15 * S, "lone", "lone--root", 1 * S),
    ]
    # phone 7 -> 17; jetson 1.5 -> 3 and 5 -> 17; truck 9 -> 20. A server waits from its first child's arrival to its
    # last's, and for what comes from above: campus 1.5 -> 3, 5 -> 7, 9 -> 15; depot 14 -> 15; root 9 -> 15.
    assert waits_of(experiment, record) == {
        "root": 6 * S,
        "campus": 19 * S // 2,
        "phone": 10 * S,
        "jetson": 27 * S // 2,
        "depot": 1 * S,
        "truck": 11 * S,
    }
    assert rows_of(experiment, record, "campus") == [
        ("campus", "wait", 3 * S // 2, 3 * S, "phone"),
        ("campus", "aggregate", 3 * S, 3 * S, "phone"),
        ("campus", "wait", 5 * S, 7 * S, "phone"),
        ("campus", "aggregate", 7 * S, 7 * S, "phone"),
        ("campus", "upload", 7 * S, 9 * S, "root"),
        ("campus", "wait", 9 * S, 15 * S, "root"),
        ("campus", "download", 15 * S, 17 * S, "root"),
    ]
