"""Profiles: which file a name stands for, CSV samples, and costs that cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from hsgd_emu.config import measured, profiles
from hsgd_emu.config.profiles import find_file, load_profile
from hsgd_emu.config.reader import Mark, Source
from hsgd_emu.config.schema import ComputeProfile, LinkProfile, Samples
from hsgd_emu.errors import Problems


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run files in study/runs, the current folder `here`, shipped examples in `shipped`."""
    for name in ("study/runs/latency_profiles", "study/latency_profiles", "here/latency_profiles"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "shipped" / "latency_profiles").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(profiles, "examples_root", lambda: tmp_path / "shipped")
    return tmp_path


def put(path: Path, text: str = "rtt_s: 1") -> Path:
    path.write_text(text)
    return path.resolve()


def test_a_name_is_looked_for_nearest_first(folders: Path) -> None:
    base = folders / "study" / "runs"
    order = [
        base / "latency_profiles",  # beside the file that names it
        folders / "study" / "latency_profiles",  # beside its folder
        folders / "here" / "latency_profiles",  # below the current folder
        folders / "shipped" / "latency_profiles",
    ]
    files = [put(folder / "near.yaml") for folder in order]
    for file in files:
        assert find_file("latency_profiles", "near", base).resolve() == file
        file.unlink()
    with pytest.raises(FileNotFoundError, match="no 'near' under latency_profiles/"):
        find_file("latency_profiles", "near", base)


def test_a_path_is_relative_to_the_file_that_names_it_and_nothing_else(folders: Path) -> None:
    put(folders / "here" / "near.yaml")
    base = folders / "study" / "runs"
    with pytest.raises(FileNotFoundError):
        find_file("latency_profiles", "near.yaml", base)
    file = put(folders / "study" / "near.yaml")
    assert find_file("latency_profiles", "../near.yaml", base).resolve() == file
    assert find_file("latency_profiles", str(file), base) == file


@pytest.mark.parametrize("name", ["", "..", "x" * 5000, "a\0b", "\udcff", "x/" * 3000])
def test_odd_names_are_not_found(name: str, folders: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_file("latency_profiles", name, folders)


def loaded(ref: str | LinkProfile, base: Path, kind: type = LinkProfile) -> tuple[LinkProfile | None, Problems]:
    problems = Problems()
    return load_profile(kind, ref, Source(Mark("run.yaml:3"), base), problems), problems


def test_csv_is_relative_to_the_profile_and_read_in_order(folders: Path) -> None:
    put(folders / "shipped" / "latency_profiles" / "near.yaml", "rtt_s: {csv: ../data.csv, column: total_s}")
    put(folders / "shipped" / "data.csv", "\ufefftotal_s,other\r\n 0.5 ,x\r\n1e-3,y\r\n")
    profile, problems = loaded("near", folders)
    assert problems == []
    assert profile is not None
    assert profile.rtt_s == Samples(samples=(0.5, 0.001))


@pytest.mark.parametrize("value", ["", "nan", "inf", "-1", "1_0", "2e9", "0,5"])
def test_csv_values_that_are_no_seconds(value: str, folders: Path) -> None:
    put(folders / "rtt.csv", f'total_s\n"{value}"\n')
    put(folders / "p.yaml", "rtt_s: {csv: rtt.csv, column: total_s}")
    profile, problems = loaded("./p.yaml", folders)
    assert profile is None
    assert "rtt.csv:2: found" in problems[0].message


def test_csv_of_too_many_rows(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "MAX_ROWS", 3)
    put(folders / "p.yaml", "rtt_s: {csv: rtt.csv, column: a}")
    put(folders / "rtt.csv", "a\n" + "1\n" * 3)
    assert loaded("./p.yaml", folders)[1] == []
    put(folders / "rtt.csv", "a\n" + "1\n" * 4)
    assert "more than 3 rows" in loaded("./p.yaml", folders)[1][0].message


def test_every_missing_csv_of_a_profile_is_told(folders: Path) -> None:
    put(folders / "p.yaml", "up_s: {csv: up.csv, column: a}\ndown_s: {csv: down.csv, column: a}")
    assert [problem.field for problem in loaded("./p.yaml", folders)[1]] == ["up_s", "down_s"]


def test_the_wrong_kind_is_blamed_on_who_names_it(folders: Path) -> None:
    put(folders / "p.yaml", "rtt_s: 1")
    (problem,) = loaded("./p.yaml", folders, ComputeProfile)[1]
    assert problem.where == "run.yaml:3"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("rtt_s: {distribution: uniform, low: 1, high: 1}", True),
        ("rtt_s: {distribution: uniform, low: 1, high: 0.5}", False),
        ("rtt_s: {distribution: normal, mean: -3, std: 1}", True),  # 0.135 % lie above 0
        ("rtt_s: {distribution: normal, mean: -4, std: 1}", False),  # 0.003 %
        ("rtt_s: {distribution: gamma, shape: 1e5, scale: 1e4}", True),  # mean 1e9 s, the longest
        ("rtt_s: {distribution: gamma, shape: 1e5, scale: 2e4}", False),
        ("rtt_s: {distribution: lognormal, median: 1e8, sigma: 2.1}", True),  # mean 1e8 * exp(2.205) = 9.1e8 s
        ("rtt_s: {distribution: lognormal, median: 1e8, sigma: 2.2}", False),  # 1e8 * exp(2.42) = 1.12e9 s
        ("rtt_s: 1\nup_share: 0", True),
        ("up_s: 1\ndown_s: 0", True),
        ("latency_s: 0\nbandwidth_bps: 1\nmodel: raw\nshared: false", True),
        ("latency_s: 0\nbandwidth_bps: 1", False),
        ("name: only", False),
    ],
)
def test_what_a_link_may_cost(text: str, right: bool, folders: Path) -> None:
    put(folders / "p.yaml", text)
    profile, problems = loaded("./p.yaml", folders)
    assert (profile is not None) == right == (not problems)
