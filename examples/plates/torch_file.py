"""Reads the arrays of a torch state dict without torch, and without running code from the file.

A `.pth` file is a pickle that refers to raw storages. The pickle may only use the few names that a
state dict of dense tensors needs; any other is an error, so a malicious file can not run code.
"""

import collections
import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
# What unpickling and unzipping raise on files that are damaged or of another kind.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    LookupError,
    EOFError,
    StopIteration,
    TypeError,
    AttributeError,
    ValueError,
)


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a state dict by name. Raises ValueError for any other file."""
    data = Path(path).read_bytes()
    try:
        state = _load_zip(data) if zipfile.is_zipfile(io.BytesIO(data)) else _load_legacy(data)
    except _DAMAGE as error:
        raise ValueError(f"this is no torch state dict: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(v, _Tensor) for v in state.values()):
        raise ValueError("this is no torch state dict: it has values that are not tensors")
    return {name: tensor.array() for name, tensor in state.items()}


class _Tensor:
    """A view of a storage that is not read yet: in a legacy file storages come after the pickle."""

    def __init__(self, storage, offset, shape, strides, *_):
        self._storage, self._offset, self._shape, self._strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        values = self._storage.values
        size = values.itemsize
        last = self._offset + sum((n - 1) * s for n, s in zip(self._shape, self._strides))  # noqa: B905
        if self._shape and 0 not in self._shape and last >= values.size:
            raise ValueError("a tensor reaches past the end of its storage")
        view = np.lib.stride_tricks.as_strided(
            values[self._offset :], self._shape, [s * size for s in self._strides]
        )
        return view.copy()


class _Storage:
    def __init__(self, kind: str):
        if kind not in _DTYPES:
            raise pickle.UnpicklingError(f"storage of kind {kind}")
        self.dtype = _DTYPES[kind]
        self.values = np.empty(0, self.dtype)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file):
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid):
        kind, key = pid[1], pid[2]
        return self.storages.setdefault(key, _Storage(kind))


def _load_zip(data: bytes):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        pickled = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        unpickler = _Unpickler(io.BytesIO(archive.read(pickled)))
        state = unpickler.load()
        for key, storage in unpickler.storages.items():
            raw = archive.read(pickled.removesuffix("data.pkl") + f"data/{key}")
            storage.values = np.frombuffer(raw, storage.dtype)
    return state


def _load_legacy(data: bytes):
    """Five pickles (magic, version, system, state, storage keys), then the storages."""
    file = io.BytesIO(data)
    if _Unpickler(file).load() != _MAGIC:
        raise pickle.UnpicklingError("the magic number is missing")
    for _ in range(2):
        _Unpickler(file).load()
    unpickler = _Unpickler(file)
    state = unpickler.load()
    for key in _Unpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storage = unpickler.storages[key]
        raw = file.read(count * storage.dtype.itemsize)
        storage.values = np.frombuffer(raw, storage.dtype)
    return state
