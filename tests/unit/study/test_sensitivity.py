"""Sensitivity: closed forms for constant networks, equality with `retime` for random ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from hsgd_emu.errors import ConfigError
from hsgd_emu.results.read import read_run
from hsgd_emu.results.store import RunStore
from hsgd_emu.results.summary import summarise
from hsgd_emu.run import run
from hsgd_emu.study.costs import ChangedCost, with_factor
from hsgd_emu.study.finished import finished_run, global_times_ns, target_of
from hsgd_emu.study.retime import retime
from hsgd_emu.study.sensitivity import Effect, Sensitivity, sensitivity, share_of

C, NEAR, FAR, MEAN = 0.004, 0.02, 0.3, 0.007
CONSTANT = f"""
name: constant
topology:
  root: {{aggregation_s: {MEAN}}}
  levels: [{{name: site, count: 2, uplink: far}}, {{name: worker, count: 3, uplink: near}}]
  links: [{{between: [worker, root], profile: far}}]
profiles: {{near: {{rtt_s: {NEAR}}}, far: {{rtt_s: {FAR}}}}}
compute: {{step_s: {C}}}
data: {{dataset: digits, partition: by_label}}
model: {{name: mlp, hidden: [8]}}
train: {{iterations: 48, learning_rate: 0.1}}
cases: [{{name: P, period: 4}}, {{name: H, periods: [12, 4]}}]
targets: {{test_loss: [2.2, 0.01]}}
seeds: [1, 2, 3]
"""
RANDOM = """
name: random
topology:
  root:
    children:
      - {name: site, count: 2, uplink: far, aggregation_s: {distribution: uniform, low: 0, high: 0.1}, children: [
          {name: phone, count: 2, uplink: {rtt_s: {distribution: gamma, shape: 2, scale: 0.1}}, compute: phone},
          {name: desk, uplink: near, compute: {step_s: 0.001}}]}
profiles:
  near: {rtt_s: {distribution: lognormal, median: 0.02, sigma: 0.5}}
  far: {latency_s: {samples: [0.1, 0.3]}, bandwidth_bps: {up: 1e6, down: 4e6}, model: raw}
  phone: {step_s: {distribution: normal, mean: 0.01, std: 0.005}}
data: {dataset: digits, partition: by_label}
model: {name: mlp, hidden: [8]}
train: {iterations: 24, participation: 0.7, learning_rate: 0.1}
cases: [{name: P, period: 4}, {name: H, periods: {root: 12, site-0: 4, site-1: 6}}]
targets: {test_loss: [2.299]}
timeline: full
seeds: [1, 2]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sensitivity")
    for name, text in (("constant", CONSTANT), ("random", RANDOM)):
        (folder / f"{name}.yaml").write_text(text)
        run(folder / f"{name}.yaml", folder / name, threads=1, device="cpu")
    return folder


@pytest.fixture(scope="module")
def found(place: Path) -> Sensitivity:
    return sensitivity(place / "constant", 0.1)


def effect(of: Sensitivity, name: str, kind: str | None = None) -> Effect:
    return next(one for one in of.effects if one.name == name and kind in (None, one.kind))


def medians(folder: Path, target: tuple[str, float]) -> dict[str, float | None]:
    return {
        case.case: next(t.median_time_s for t in case.targets if (t.metric, t.target) == target)
        for case in summarise(folder)
    }


def test_saved_on_a_constant_network_is_known_in_closed_form(place: Path, found: Sensitivity) -> None:
    # The hardest target that is reached; 0.01 is not.
    assert found.target == ("test_loss", 2.2)
    assert found.time_s == pytest.approx(medians(place / "constant", ("test_loss", 2.2)), abs=1e-9)
    # A round of P: 4 steps, one exchange with root, its aggregation. Of H: 12 steps, three exchanges with the site,
    # one of the site with root, its aggregation.
    paid = {"P": {"compute": 4 * C, "far": FAR, "root": MEAN}}
    paid["H"] = {"compute": 12 * C, "near": 3 * NEAR, "far": FAR, "root": MEAN}
    for case, costs in paid.items():
        time_s = found.time_s[case]
        assert time_s is not None
        rounds = round(time_s / sum(costs.values()))
        assert rounds >= 1
        assert time_s == pytest.approx(rounds * sum(costs.values()), abs=1e-9)
        for name, cost_s in costs.items():
            assert effect(found, name).saved_s[case] == pytest.approx(0.1 * rounds * cost_s, abs=1e-7)
            assert effect(found, name).elasticity[case] == pytest.approx(cost_s / sum(costs.values()), abs=1e-5)
    assert effect(found, "near").saved_s["P"] == 0
    assert effect(found, "far").blame == 1


def test_ranked_by_what_the_best_case_gains(found: Sensitivity) -> None:
    gains = [one.gain_s for one in found.effects]
    assert gains == sorted(gains, reverse=True)
    assert found.best == "H"
    # 3 x 0.02 beats 12 x 0.004 and 0.007, and 0.3 beats them all.
    assert [one.name for one in found.effects][:4] == ["far", "near", "compute", "root"]
    # All workers are alike: with one of them faster, the others are waited for as long.
    single = [one for one in found.effects if one.kind in ("link", "worker")]
    assert [one.gain_s for one in single] == [0] * len(single)
    assert single


def test_a_cut_is_retime_with_a_scale(place: Path, tmp_path: Path) -> None:
    target = ("test_loss", 2.299)
    found = sensitivity(place / "random", 0.25, target)
    for name in ("near", "far", "phone"):
        again = retime(place / "random", tmp_path / name, scales=[f"{name}=0.75"])
        assert effect(found, name).time_s == pytest.approx(medians(again, target), abs=1e-9)
    assert {one.name for one in found.effects} >= {"phone--site", "compute of desk"}  # the inline profiles
    low = "topology.root.children.0.aggregation_s={distribution: uniform, low: 0, high: 0.075}"
    again = retime(place / "random", tmp_path / "aggregation", [low])
    assert effect(found, "site").time_s == pytest.approx(medians(again, target), abs=1e-9)


def test_blame_counts_the_recorded_barriers_and_does_not_need_them(place: Path, tmp_path: Path) -> None:
    found = sensitivity(place / "random")
    case, results = found.best, read_run(place / "random")
    rows = results.barriers[results.barriers.case == case].merge(
        results.targets[["case", "seed", "iteration"]].rename(columns={"iteration": "until"}), on=["case", "seed"]
    )
    rows = rows[rows.iteration <= rows.until]
    at_root = rows[rows.server == "root"]
    for name in at_root.link.unique():
        assert effect(found, name, "link").blame == pytest.approx((at_root.link == name).mean())
    for keep in ("rounds", "none"):
        again = sensitivity(retime(place / "random", tmp_path / keep, [f"timeline={keep}"]))
        assert again == found


SLOW = """
root:
  aggregation_s: 0.007
  children:
    - {name: site, uplink: far, children: [{name: worker, uplink: near, compute: {step_s: 0.01}},
                                           {name: worker, uplink: slow}, {name: worker, uplink: near}]}
    - {name: site, uplink: far, children: [{name: worker, uplink: near, count: 3}]}
links: [{between: [worker, root], profile: far}]
"""


def test_the_slow_one_is_the_one_to_make_faster(place: Path, tmp_path: Path) -> None:
    (tmp_path / "slow.yaml").write_text(SLOW)
    (tmp_path / "link.yaml").write_text("up_s: 0.03\ndown_s: 0.01\n")
    changes = {"topology": str(tmp_path / "slow.yaml"), "profiles": [f"slow={tmp_path / 'link.yaml'}"]}
    found = sensitivity(retime(place / "constant", tmp_path / "slow", **changes), 0.5, ("test_loss", 2.2))
    # Of H: worker-0 takes 4 x 0.01 + 0.02 = 60 ms a local period, worker-1 4 x 0.004 + 0.04 = 56 ms, others 36 ms.
    rounds = round((found.time_s["H"] or 0) / (3 * 0.06 + FAR + MEAN))
    assert found.time_s["H"] == pytest.approx(rounds * (3 * 0.06 + FAR + MEAN), abs=1e-7)
    # With half its step time worker-0 needs 40 ms, and worker-1's 56 ms are waited for: 4 ms a period are saved.
    assert effect(found, "compute of worker").saved_s["H"] == pytest.approx(rounds * 3 * 0.004, abs=1e-7)
    # 1% less, and it is still the last: the derivative is its 40 of 60 ms.
    share = 3 * 0.04 / (3 * 0.06 + FAR + MEAN)
    assert effect(found, "compute of worker").elasticity["H"] == pytest.approx(share, abs=1e-5)
    assert effect(found, "compute of worker").blame == 1
    assert effect(found, "slow").saved_s["H"] == effect(found, "slow").blame == 0
    # Its own link: 10 of its 20 ms would be 50 ms, so again worker-1 is waited for.
    assert effect(found, "worker-0--site-0", "link").saved_s["H"] == pytest.approx(rounds * 3 * 0.004, abs=1e-7)


def test_one_place_can_be_changed_by_itself(place: Path) -> None:
    finished = finished_run(place / "constant")
    for cost, longer_s in [
        (ChangedCost("worker", "worker-4"), 12 * C),
        (ChangedCost("link", "worker-4--site-1"), 3 * NEAR),
        # Its way is the tree's: never over a worker that has a link of its own to the root.
        (ChangedCost("link", "site-1--root"), FAR),
        (ChangedCost("aggregation", "root"), MEAN),
    ]:
        # Twice as slow, and all others wait for it: a first round of H takes that much longer.
        both = [finished.experiment, with_factor(finished.experiment, cost, 2)]
        times_ns = global_times_ns(finished, both, finished.experiment.schedules[1], [1], 12)[:, 0, 0]
        assert (times_ns[1] - times_ns[0]) / 1e9 == pytest.approx(longer_s)


def test_tells_when_another_case_becomes_the_best(place: Path, tmp_path: Path, found: Sensitivity) -> None:
    base = found.time_s
    rounds = {
        "P": round((base["P"] or 0) / (4 * C + FAR + MEAN)),
        "H": round((base["H"] or 0) / (12 * C + 3 * NEAR + FAR + MEAN)),
    }
    # Choose `far` so that P takes 2% longer than H: rounds_P (16 ms + 7 ms + far) = 1.02 rounds_H (115 ms + far).
    far = (1.02 * rounds["H"] * (12 * C + 3 * NEAR + MEAN) - rounds["P"] * (4 * C + MEAN)) / (
        rounds["P"] - 1.02 * rounds["H"]
    )
    assert far > 0.03
    again = sensitivity(retime(place / "constant", tmp_path / "close", [f"profiles.far.rtt_s={far}"]), 0.5)
    assert again.best == "H"
    assert effect(again, "far").best == "P"
    then_s = rounds["P"] * (4 * C + MEAN + far / 2)
    assert effect(again, "far").gain_s == pytest.approx((again.time_s["H"] or 0) - then_s, abs=1e-7)
    assert any("P becomes the best case" in line for line in again.lines())


def test_printed(found: Sensitivity) -> None:
    lines = found.lines()
    assert lines[0].startswith("To test loss 2.2, H is the best case: ")
    assert "10% less of far (link profile) saves most" in lines[1]
    assert lines[2] == "H stays the best case whichever of them is cut."
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(found.table())
    text = console.export_text()
    assert "10% less of" in text
    assert "P saves" in text
    # 0.3 of 0.415 s.
    assert "7.23%" in text


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.1", 0.1), (" 2.5 % ".strip(), 0.025)])
def test_shares(text: str, share: float) -> None:
    assert share_of(text, "--improve") == pytest.approx(share)


@pytest.mark.parametrize("text", ["0", "100%", "ten", "1_0%", "nan", "-10%", ""])
def test_wrong_shares(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a share such as 10% or 0\.1"):
        share_of(text, "--improve")


def test_targets_by_name() -> None:
    assert target_of("test_accuracy=0.8") == ("test_accuracy", 0.8)
    for text, said in [
        ("accuracy=0.8", "did you mean 'test_accuracy'"),
        ("test_accuracy=80", "a fraction above 0 and at most 1"),
        ("test_loss=-1", "a number of at least 0"),
        ("test_loss", "a number of at least 0"),
        ("test_loss=1_0", "a number of at least 0"),
    ]:
        with pytest.raises(ConfigError, match=said):
            target_of(text)


def test_what_cannot_be_asked_is_refused_with_the_reason(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no case reached test loss 0\.01 .* the best of any seed is test_loss"):
        sensitivity(place / "constant", target=("test_loss", 0.01))
    with pytest.raises(ConfigError, match="names no targets; name one with --target"):
        sensitivity(retime(place / "constant", tmp_path / "untargeted", ["targets={}"]))
    with pytest.raises(ConfigError, match="--improve: found 1; expected a share"):
        sensitivity(place / "constant", 1)
    run(place / "constant.yaml", tmp_path / "silent", timing_only=True)
    with pytest.raises(ConfigError, match="--timing-only and learned nothing, so when it reaches a target"):
        sensitivity(tmp_path / "silent")
    part = retime(place / "constant", tmp_path / "part")
    with RunStore.open(part) as store:
        store.restart_trial(store.trials[1])
    with pytest.raises(ConfigError, match=r"not finished: P, seed 2; .* --resume"):
        sensitivity(part)
    with pytest.raises(ConfigError, match="is no folder"):
        sensitivity(tmp_path / "nowhere")
