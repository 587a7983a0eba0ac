"""Routes by hand: direct links, ways over two links, links not worth taking, and ways through other nodes."""

from __future__ import annotations

from oracle.drive import assert_engine_is_recursion, barriers_of, experiment_of, rows_of

MS = 1_000
NS_PER_MS = 1_000_000

TEXT = """
name: links
topology:
  levels:
    - {name: site, count: 2, uplink: {rtt_s: 0.1}}
    - {name: worker, count: 1, uplink: {rtt_s: 0.01}}
  links:
    - {between: [worker-0, root], profile: {rtt_s: 0.06}}
    - {between: [worker-1, root], profile: {rtt_s: 0.2}}
compute: {step_s: 0.001}
model: softmax_regression
train: {iterations: 2}
cases:
  - {name: "P=1", period: 1}
  - {name: "G=1 I=1", periods: [1, 1]}
"""


def test_local_sgd_takes_the_direct_link_or_the_way_over_two() -> None:
    # worker-0: its direct link (60) is cheaper than 10 + 100: 1 + 30 = 31. worker-1: 10 + 100 is cheaper than its
    # direct link (200): 1 + 5 + 50 = 56. Down from 56: worker-0 at 86, worker-1 at 111.
    experiment = experiment_of(TEXT)
    first, second = assert_engine_is_recursion(experiment, 0)
    assert (first.aggregated_ns, first.time_ns) == (56 * NS_PER_MS, 111 * NS_PER_MS)
    assert tuple(first.split) == (1 * NS_PER_MS, 110 * NS_PER_MS, 0)
    # Of the two links of its way, the far one held worker-1 up.
    assert barriers_of(experiment, first) == [("root", 1, 56 * MS, "worker-1", "site-1--root", 25 * MS)]
    # worker-0 does not wait for worker-1 to hold the model: its second round starts at 86.
    assert rows_of(experiment, second, "worker-0")[0] == ("worker-0", "compute", 86 * MS, 87 * MS, "")
    assert second.time_ns == 222 * NS_PER_MS


def test_a_server_uses_its_own_link_and_not_its_workers() -> None:
    # Both groups 1 + 5 = 6, both sites go up their own links: 6 + 50 = 56; the first of equals is blamed. Down from
    # 56: 56 + 50 + 5 = 111 at both workers. That worker-0 has a link of 60 to the root is nothing to its site.
    experiment = experiment_of(TEXT)
    first, _ = assert_engine_is_recursion(experiment, 1)
    assert (first.aggregated_ns, first.time_ns) == (56 * NS_PER_MS, 111 * NS_PER_MS)
    assert barriers_of(experiment, first)[-1] == ("root", 1, 56 * MS, "site-0", "site-0--root", 0)
    assert rows_of(experiment, first, "site-0")[-1] == ("site-0", "download", 56 * MS, 106 * MS, "root")


def test_with_least_cost_routing_a_server_goes_through_its_worker() -> None:
    # Both groups 1 + 5 = 6. site-1 goes up its own link: 6 + 50 = 56. For site-0 the way through its worker's direct
    # link, 10 + 60, is cheaper than its own 100: 6 + 5 + 30 = 41. Down from 56: worker-0 56 + 35 + 5, worker-1 111.
    experiment = experiment_of(TEXT.replace("topology:\n", "topology:\n  routing: least_cost\n"))
    first, _ = assert_engine_is_recursion(experiment, 1)
    assert (first.aggregated_ns, first.time_ns) == (56 * NS_PER_MS, 111 * NS_PER_MS)
    assert barriers_of(experiment, first)[-1] == ("root", 1, 56 * MS, "site-1", "site-1--root", 15 * MS)
    assert rows_of(experiment, first, "site-0")[-1] == ("site-0", "download", 56 * MS, 91 * MS, "root")


BACKWARDS = """
name: backwards
topology:
  routing: least_cost
  root:
    children:
      - name: site
        uplink: {up_s: 9, down_s: 9}
        children:
          - {name: hub, uplink: {up_s: 1, down_s: 2}}
          - {name: leaf}
  links:
    - {between: [hub, leaf], profile: {up_s: 4, down_s: 0.5}}
compute: {step_s: 1}
model: softmax_regression
train: {iterations: 1}
cases: [{name: "G=1 I=1", periods: [1, 1]}]
"""


def test_a_link_is_travelled_backwards_at_its_down_cost() -> None:
    # leaf has no uplink: it sends through its neighbour. Its upload goes from the second end of the link to the
    # first, which is the link's `down` (0.5), then up over hub's link (1): 1 + 0.5 + 1 = 2.5. hub: 1 + 1 = 2.
    # Site to root 2.5 + 9 = 11.5, down 9 -> 20.5; hub 22.5, leaf over hub's down and the link's up: 20.5 + 2 + 4.
    experiment = experiment_of(BACKWARDS)
    (record,) = assert_engine_is_recursion(experiment)
    assert record.time_ns == 26_500 * NS_PER_MS
    assert record.aggregated_ns == 11_500 * NS_PER_MS
    assert tuple(record.split) == (1000 * NS_PER_MS, 25_500 * NS_PER_MS, 0)
    assert barriers_of(experiment, record)[0] == ("site", 1, 2500 * MS, "leaf", "hub--site", 500 * MS)
