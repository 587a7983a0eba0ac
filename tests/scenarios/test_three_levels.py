"""Three levels by hand, with aggregation costs, and with a level that only passes models through."""

from __future__ import annotations

from oracle.drive import assert_engine_is_recursion, experiment_of, rows_of

MS = 1_000
NS_PER_MS = 1_000_000

TEXT = """
name: three
topology:
  root:
    aggregation_s: 0.003
    children:
      - name: metro
        uplink: {up_s: 0.02, down_s: 0.03}
        children:
          - name: edge
            count: 2
            uplink: {up_s: 0.005, down_s: 0.007}
            aggregation_s: 0.001
            children: [{name: worker, count: 2, uplink: {up_s: 0.002, down_s: 0.001}}]
compute: {step_s: 0.001}
model: softmax_regression
train: {iterations: 16}
cases:
  - {name: "8 4 2", periods: [8, 4, 2]}
  - {name: "4 none 2", periods: [4, none, 2]}
"""


def test_three_levels_with_aggregation_costs() -> None:
    # 2: steps 2, up 4, edge done 5, down 6.
    # 4: steps 8, up 10, edge done 11, up 16, metro (free), down 23, down 24.
    # 6: steps 26, up 28, edge done 29, down 30.
    # 8: steps 32, up 34, edge done 35, up 40, metro, up 60, root done 63, down 93, 100, 101.
    experiment = experiment_of(TEXT)
    first, second = assert_engine_is_recursion(experiment, 0)
    assert (first.aggregated_ns, first.time_ns) == (63 * NS_PER_MS, 101 * NS_PER_MS)
    assert second.time_ns == 202 * NS_PER_MS
    # compute 8; 4 edge aggregations and one at the root: 7; the rest, 4 * 3 + 2 * 12 + 50 = 86, is communication.
    assert tuple(first.split) == (8 * NS_PER_MS, 86 * NS_PER_MS, 7 * NS_PER_MS)
    assert rows_of(experiment, first, "edge-1", "metro", "root") == [
        ("edge-1", "aggregate", 4 * MS, 5 * MS, "worker-2"),
        ("edge-1", "aggregate", 10 * MS, 11 * MS, "worker-2"),
        ("edge-1", "upload", 11 * MS, 16 * MS, "metro"),
        ("metro", "aggregate", 16 * MS, 16 * MS, "edge-0"),
        ("edge-1", "download", 16 * MS, 23 * MS, "metro"),
        ("edge-1", "aggregate", 28 * MS, 29 * MS, "worker-2"),
        ("edge-1", "aggregate", 34 * MS, 35 * MS, "worker-2"),
        ("edge-1", "upload", 35 * MS, 40 * MS, "metro"),
        ("metro", "aggregate", 40 * MS, 40 * MS, "edge-0"),
        ("metro", "upload", 40 * MS, 60 * MS, "root"),
        ("edge-1", "wait", 40 * MS, 93 * MS, "metro"),
        ("root", "aggregate", 60 * MS, 63 * MS, "metro"),
        ("metro", "wait", 60 * MS, 63 * MS, "root"),
        ("metro", "download", 63 * MS, 93 * MS, "root"),
        ("edge-1", "download", 93 * MS, 100 * MS, "metro"),
    ]


def test_a_skipped_level_passes_models_through() -> None:
    # 2: steps 2, up 4, edge done 5, down 6. 4: steps 8, up 10, edge done 11, over both links 5 + 20 -> 36,
    # root done 39, back over both 30 + 7 -> 76, down 77. The metro server has nothing to do.
    experiment = experiment_of(TEXT)
    records = assert_engine_is_recursion(experiment, 1)
    assert [record.time_ns for record in records] == [77 * NS_PER_MS * number for number in (1, 2, 3, 4)]
    assert records[0].aggregated_ns == 39 * NS_PER_MS
    assert tuple(records[0].split) == (4 * NS_PER_MS, 68 * NS_PER_MS, 5 * NS_PER_MS)
    assert rows_of(experiment, records[0], "metro") == []
    assert rows_of(experiment, records[0], "edge-0")[2] == ("edge-0", "upload", 11 * MS, 36 * MS, "root")
