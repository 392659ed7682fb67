"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from qis_connectors.router.packet_log.journal import sync_folder


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """What the block writes is on the disk, under its name, when it ends; nothing is left of it where it raises."""
    draft = path.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
