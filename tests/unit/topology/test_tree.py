"""A topology file -> named nodes in depth-first order."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsgd_emu.config.load import draft_topology
from hsgd_emu.config.reader import read_text
from hsgd_emu.errors import Problems
from hsgd_emu.topology.tree import MAX_NODES, Topology, build_topology

LEVELS = """
name: two
levels:
  - {name: site, count: 2, uplink: far}
  - {name: worker, count: 3, uplink: near}
"""
UNEVEN = """
root:
  name: cloud
  children:
    - name: campus
      uplink: far
      children:
        - {name: phone, count: 2, uplink: wifi, compute: slow}
        - {name: jetson, uplink: wifi}
    - name: depot
      uplink: far
      children:
        - {name: phone, uplink: lte}
    - {name: lone, uplink: far}
"""


def built(text: str) -> tuple[Topology | None, Problems]:
    problems = Problems()
    draft = draft_topology(read_text(text, "t.yaml", Path()), problems)
    assert draft is not None, problems
    return build_topology(draft, problems), problems


def tree(text: str) -> Topology:
    topology, problems = built(text)
    assert not problems
    assert topology is not None
    return topology


def told(text: str) -> list[str]:
    topology, problems = built(text)
    assert topology is None
    return [str(problem) for problem in problems]


def test_levels_are_numbered_depth_first_through_the_whole_topology() -> None:
    names = [node.name for node in tree(LEVELS).nodes]
    assert names == [
        "root",
        "site-0",
        *(f"worker-{n}" for n in (0, 1, 2)),
        "site-1",
        *(f"worker-{n}" for n in (3, 4, 5)),
    ]


def test_an_uneven_tree_keeps_the_order_of_the_file() -> None:
    topology = tree(UNEVEN)
    names = ["cloud", "campus", "phone-0", "phone-1", "jetson", "depot", "phone-2", "lone"]
    assert [node.name for node in topology.nodes] == names
    assert [node.parent for node in topology.nodes] == [None, 0, 1, 1, 1, 0, 5, 0]
    assert [node.level for node in topology.nodes] == [0, 1, 2, 2, 2, 1, 2, 1]
    assert topology.nodes[1].children == (2, 3, 4)
    assert topology.workers == (2, 3, 4, 6, 7)
    assert topology.servers == (0, 1, 5)
    assert topology.num_levels == 2


def test_groups_are_worker_numbers_below_each_server() -> None:
    # The root's own group is the worker that hangs on it directly.
    assert tree(UNEVEN).groups() == [[4], [0, 1, 2], [3]]
    assert tree(LEVELS).groups() == [[0, 1, 2], [3, 4, 5]]


def test_a_name_stands_for_one_node_or_for_its_class() -> None:
    topology = tree(UNEVEN)
    assert topology.named("phone") == (2, 3, 6)
    assert topology.named("phone-2") == (6,)
    assert topology.named("jetson") == (4,)
    assert topology.named("nobody") == ()


def test_tree_links_come_first_and_are_named_from_below() -> None:
    text = (
        LEVELS + "links:\n  - {between: [worker-5, root], profile: far}\n  - {between: [site, site], profile: ring}\n"
    )
    links = tree(text).links
    assert [link.name for link in links[:2]] == ["site-0--root", "worker-0--site-0"]
    assert [(link.name, link.lower, link.upper) for link in links[8:]] == [
        ("worker-5--root", 8, 0),
        ("site-0--site-1", 1, 5),
    ]


def test_a_class_in_a_further_link_means_each_of_its_nodes() -> None:
    links = tree(LEVELS + "links: [{between: [worker, site], profile: x}]").links[8:]
    assert len(links) == 12
    assert links[0].name == "worker-0--site-0#2"
    assert links[1].name == "worker-0--site-1"


def test_a_second_link_between_the_same_nodes_has_a_name_of_its_own() -> None:
    # The name keys its random draws.
    text = LEVELS + "links:\n" + "  - {between: [site-0, root], profile: far}\n" * 2
    assert [link.name for link in tree(text).links if link.lower == 1] == [
        "site-0--root",
        "site-0--root#2",
        "site-0--root#3",
    ]


def test_one_level_is_a_star() -> None:
    topology = tree("levels: [{name: worker, count: 4, uplink: far}]")
    assert (topology.servers, topology.workers, topology.num_levels) == ((0,), (1, 2, 3, 4), 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x", "neither levels nor root.children"),
        (LEVELS + "root: {children: [{name: a}]}", "both root.children and levels"),
        ("root: {children: [{name: a-0}, {name: a, count: 2}]}", "the name 'a-0' also belongs to another node"),
        ("root: {children: [{name: root}]}", "'root' is the name of the global server"),
        ("root: {children: [{name: a, compute: x, children: [{name: b}]}]}", "'a' is a server; only workers compute"),
        ("root: {children: [{name: a, aggregation_s: 1}]}", "'a' is a worker; only servers aggregate"),
        (
            LEVELS + "links: [{between: [wroker, root], profile: x}]",
            "no node or class 'wroker'; did you mean 'worker'?",
        ),
        (LEVELS + "links: [{between: [root, root], profile: x}]", "links 'root' with itself"),
        (f"levels: [{{name: w, count: {MAX_NODES}, uplink: x}}]", f"at most {MAX_NODES} are supported"),
    ],
)
def test_mistakes_are_told_with_their_line(text: str, message: str) -> None:
    (problem,) = told(text)
    assert message in problem
    assert problem.startswith("t.yaml:")


def test_all_mistakes_are_told_at_once() -> None:
    text = "root:\n  children:\n    - {name: a, aggregation_s: 1}\n    - {name: b, aggregation_s: 1}\n"
    assert [problem.split(": ")[0] for problem in told(text)] == ["t.yaml:3", "t.yaml:4"]


def test_as_many_nodes_as_are_allowed_are_built() -> None:
    # The root is one of them; counting before building keeps a mistyped count from filling the memory.
    assert len(tree(f"levels: [{{name: w, count: {MAX_NODES - 1}, uplink: x}}]").nodes) == MAX_NODES


def test_a_very_deep_tree_is_a_chain() -> None:
    levels = ", ".join(f"{{name: l{n}, count: 1, uplink: x}}" for n in range(30))
    topology = tree(f"levels: [{levels}]")
    assert topology.num_levels == 30
    assert topology.workers == (30,)
