"""Arrays of ``.npz`` files, mapped into memory. `numpy.load` copies them, whatever its mode."""

import os
import struct
import zipfile

import numpy as np


def load(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a file that `numpy.savez` wrote, without compression.

    Raises:
      ValueError: If the file is compressed, cut off or not of this kind.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _arrays(path, archive)
    except (zipfile.BadZipFile, struct.error, EOFError):
        raise ValueError(f"{path} is not a file of arrays; it must be one from `save`.") from None


def _arrays(path: str | os.PathLike, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    arrays = {}
    with open(path, "rb") as file:
        for item in archive.infolist():
            if item.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{path} is compressed; it must be as `save` wrote it.")
            # The entry's own header: 30 bytes, of which the last four say how long the name and
            # the extra field are that follow.
            file.seek(item.header_offset + 26)
            file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
            try:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                    version, np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read(file)
            except ValueError:  # no array
                fortran = True
            if fortran or dtype.hasobject:
                raise ValueError(f"{path} has {item.filename}; it must be as `save` wrote it.")
            name = item.filename.removesuffix(".npy")
            if 0 in shape:  # nothing can be mapped
                arrays[name] = np.zeros(shape, dtype)
            else:
                arrays[name] = np.memmap(file, dtype, "r", file.tell(), shape)
    return arrays
