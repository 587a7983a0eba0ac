"""Data sets, decoded once, and how their training samples are spread over the workers.

Arrays out, no torch: the learner moves them to its device and normalises there. NumPy is the only library
imported before a data set is really loaded, so the validator may import this package.
"""

from hsgd_emu.learning.data.dataset import Dataset
from hsgd_emu.learning.data.load import load_dataset
from hsgd_emu.learning.data.partitions import partition
from hsgd_emu.learning.data.spec import DATASETS, check_data_spec, dataset_root

__all__ = ["DATASETS", "Dataset", "check_data_spec", "dataset_root", "load_dataset", "partition"]
