"""Where versions are: in the rows of the stacks, or set aside where a row is needed for something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary, ref

import torch

from hsgd_emu.engine.operations import NOTHING, Version
from hsgd_emu.learning.compression import Compressor
from hsgd_emu.learning.requests import Combine, Compress, Steps
from hsgd_emu.learning.stacks import Stacks, Tensors


class Register:
    """Holds a version's model; there as long as the version is.

    number: of the version; row: of the stacks; aside: the tensors that are sent, where it is no longer in a row.
    """

    __slots__ = ("__weakref__", "aside", "number", "row")

    def __init__(self, number: int, row: int, aside: Tensors | None = None) -> None:
        self.number, self.row, self.aside = number, row, aside


class Registers:
    """The registers of one trial's versions. A worker takes steps, and a server averages, in a row of its own."""

    def __init__(self, stacks: Stacks) -> None:
        self.stacks = stacks
        self._in_row: dict[int, ref[Register]] = {}
        self._aside: WeakValueDictionary[int, Register] = WeakValueDictionary()

    def put(self, version: Version, row: int) -> None:
        """Let a version be what is now in a row."""
        register = Register(version.number, row)
        version.register, self._in_row[row] = register, ref(register)

    def free(self, row: int) -> None:
        """Let a row be overwritten: what it holds is set aside if somebody still needs it."""
        found = self._in_row.pop(row, None)
        register = found() if found is not None else None
        if register is not None:
            register.row, register.aside = -1, self.stacks.sent_of(row)
            self._aside[register.number] = register

    def source(self, version: Version) -> int | Tensors:
        """Return where a version is."""
        register: Register = version.register
        return register.row if register.aside is None else register.aside

    def take(self, requests: Sequence[Steps]) -> None:
        """Put the version that each worker begins with into the worker's row, and let go of it."""
        elsewhere: list[Steps] = []
        for request in requests:
            if self.source(request.version) == request.place:
                request.version = NOTHING
            else:
                elsewhere.append(request)
        for request in requests:
            self.free(request.place)
        by_register: dict[Register, list[Steps]] = {}
        for request in elsewhere:
            by_register.setdefault(request.version.register, []).append(request)
        for of_one in by_register.values():
            self.stacks.copy(self.source(of_one[0].version), [request.place for request in of_one])
        for request in elsewhere:
            request.version = NOTHING

    def combine(self, request: Combine, weights: torch.Tensor) -> None:
        """Make an average in the server's row."""
        begun = None if request.begun is NOTHING else self.source(request.begun)
        sources = [self.source(version) for version in request.versions]
        request.begun, request.versions = NOTHING, []
        self.free(request.place)
        self.stacks.combine(request.place, begun, sources, weights, request.held)
        self.put(request.made, request.place)

    def compress(self, request: Compress, compressor: Compressor) -> None:
        """Set aside what is received of a version that is sent compressed."""
        version, base = self.source(request.version), self.source(request.base)
        register = Register(request.made.number, -1, self.stacks.compressed(version, base, compressor))
        request.version = request.base = NOTHING
        request.made.register = self._aside[register.number] = register

    def state(self) -> dict[int, Tensors]:
        """Return by number the versions that are still needed, on the CPU."""
        found = {number: register.aside or {} for number, register in self._aside.items()}
        for row, there in self._in_row.items():
            if (register := there()) is not None:
                found[register.number] = self.stacks.sent_of(row)
        return {number: {name: tensor.cpu() for name, tensor in found[number].items()} for number in sorted(found)}

    def restore(self, state: Mapping[int, Tensors], versions: Mapping[int, Version]) -> None:
        """Let versions be what is stored."""
        for number, stored in state.items():
            register = Register(number, -1, self.stacks.on_device(stored))
            versions[number].register = self._aside[number] = register
