"""The height of a line, its frames, and the widths that batches are padded to."""

HEIGHT = 24
STRIDE = 2  # columns per frame
WIDTHS = (96, 192, 384)  # of training batches, in columns: one program is compiled for each
READING_WIDTHS = (*WIDTHS, 768, 1536, 3072)


def frames(width: int) -> int:
    """Returns the number of frames of a line of `width` columns."""
    return -(-width // STRIDE)


def bucket(width: int, widths: tuple[int, ...] = READING_WIDTHS) -> int | None:
    """Returns the least of `widths` that holds a line, or None if none does."""
    return next((w for w in widths if w >= width), None)
