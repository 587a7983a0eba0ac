"""The checks of `data:` that need no data, and that they stay light."""

import subprocess
import sys

import pytest

from hsgd_emu.config.run_schema import Augment, DataSpec, Normalize
from hsgd_emu.learning.data import DATASETS, check_data_spec


def test_every_known_data_set_with_its_defaults_is_fine():
    assert all(check_data_spec(DataSpec(dataset=name)) == [] for name in DATASETS)
    assert check_data_spec(DataSpec(dataset="my.module:make", options={"size": 3})) == []
    assert check_data_spec(DataSpec(partition="dirichlet", alpha=0.1, grouping="random")) == []
    assert check_data_spec(DataSpec(partition="shards", classes_per_worker=2)) == []


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        (DataSpec(dataset="cifar-10"), "data.dataset", "did you mean 'cifar10'?"),
        (DataSpec(dataset="a b:c"), "data.dataset", "module:factory"),
        (DataSpec(dataset="digits", options={"a": 1}), "data.options", "module:factory"),
        (DataSpec(dataset="digits", folder="x"), "data.folder", "reads no folder"),
        (DataSpec(dataset="npz", image_size=(2, 2)), "data.image_size", "image_folder"),
        (DataSpec(dataset="cifar10", layout="channels_last"), "data.layout", "that of cifar10 is known"),
        (DataSpec(dataset="digits", augment=Augment(crop=4)), "data.augment", "vectors"),
        (DataSpec(partition="dirichlet"), "data.alpha", "missing"),
        (DataSpec(partition="shards"), "data.classes_per_worker", "missing"),
        (DataSpec(partition="iid", alpha=0.5), "data.alpha", "dirichlet"),
        (DataSpec(partition="by_label", classes_per_worker=2), "data.classes_per_worker", "shards"),
        (DataSpec(partition="group_iid", grouping="random"), "data.grouping", "group_iid"),
        (DataSpec(partition="group_non_iid", grouping="random"), "data.grouping", "group_non_iid"),
        (DataSpec(dataset="digits", partition="natural"), "data.partition", "leaf"),
        (
            DataSpec(normalize=Normalize(mean=(0.1, 0.2), std=(1.0, 1.0, 1.0))),
            "data.normalize",
            "2 means and 3",
        ),
    ],
)
def test_a_mistake_names_its_field_and_what_would_be_right(spec, field, says):
    [(found, message)] = check_data_spec(spec)
    assert found == field
    assert says in message


def test_all_mistakes_are_found_at_once():
    spec = DataSpec(dataset="cifra10", partition="shards", alpha=1.0)
    assert [field for field, _ in check_data_spec(spec)] == [
        "data.dataset",
        "data.classes_per_worker",
        "data.alpha",
    ]


def test_importing_the_package_loads_no_heavy_library():
    # `hsgd-emu check` imports it and must answer in well under a second.
    heavy = ("torch", "torchvision", "sklearn", "PIL", "pandas", "scipy")
    code = f"import sys, hsgd_emu.learning.data; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
