"""What a power failure may leave of a folder: only what was fsynced is sure to be there. A kill -9 proves none of it.

Every fsync of this process under the folder is recorded where it leaves the process: os.fsync, os.fdatasync, and for
SQLite a VFS between it and the disk. A file is as its last fsync found it, a folder has the names that its own last
fsync found, or, in a torn image, any of what came later too: of a file any sectors, of a folder its names up to any
moment, for a file system keeps the order of these.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from threading import RLock
from unittest.mock import patch

import apsw

SECTOR = 512
_JOURNALS = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL

Inode = tuple[int, int, bool]
"""Device, number, and whether it is a folder."""

Image = dict[str, bytes | None]
"""Contents by path below the folder; None is a folder."""


class Disk:
    """The disk under `root`, which is on it as it is now. `at` is called before each fsync, rename and deletion."""

    def __init__(self, root: Path, at: "Callable[[Disk], None]") -> None:
        self.lock = RLock()
        self._root = str(root)
        self._at = at
        self._content: dict[Inode, bytes] = {}
        self._names: dict[Inode, list[dict[str, Inode]]] = {}
        self._held: dict[Inode, int] = {}  # open, or the number of a file that has gone would be given to another
        self._synced(self._root)

    @contextmanager
    def recording(self) -> Iterator[None]:
        vfs = _Recorder(self)
        calls = {name: self._before(getattr(os, name)) for name in ("rename", "unlink", "rmdir")}
        syncs = {name: self._around(getattr(os, name)) for name in ("fsync", "fdatasync")}
        with patch.multiple(os, **calls, **syncs), patch.object(apsw, "Connection", _Recorded):
            yield
        vfs.unregister()
        for held in self._held.values():
            os.close(held)

    def image(self, chance: Random | None = None) -> Image:
        """What a failure of the power would leave now; with `chance`, torn."""
        found: Image = {}
        with self.lock:
            self._add(found, "", self._root, _inode(Path(self._root).stat()), chance)
        return found

    def sync(self, path: str, call: Callable[[], object]) -> None:
        """What `call` makes durable."""
        with self.lock:
            self._at(self)
            call()
            self._synced(path)

    def _around(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def recorded(descriptor: int) -> None:
            path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
            if path.startswith(self._root):
                self.sync(path, lambda: call(descriptor))
            else:
                call(descriptor)

        return recorded

    def _before(self, call: Callable[..., None]) -> Callable[..., None]:
        def recorded(path: os.PathLike[str], *others: object, **options: object) -> None:
            beneath = f"/proc/self/fd/{options['dir_fd']}" if "dir_fd" in options else Path(path).parent
            folder = Path(os.path.realpath(beneath))
            with self.lock:
                if is_ours := str(folder).startswith(self._root):
                    self._at(self)
                call(path, *others, **options)
                if is_ours and (history := self._names.get(_inode(folder.stat()))):
                    history.append(_listing(folder))

        return recorded

    def _synced(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        found = os.fstat(descriptor)
        inode = _inode(found)
        if inode[2]:
            self._names[inode] = [_listing(Path(path))]
        else:
            self._content[inode] = _read(descriptor)
        if inode in self._held:
            os.close(descriptor)
        else:
            self._held[inode] = descriptor

    def _add(self, image: Image, name: str, path: str, inode: Inode, chance: Random | None) -> None:
        """`path` is where the file or the folder is now, if it is there still."""
        found = _stat(path)
        is_there = found is not None and _inode(found) == inode
        if inode[2]:
            image[name] = None
            history = self._names.get(inode, [{}])
            if chance and is_there:
                history = [*history, _listing(Path(path))]
            for entry, of_entry in (chance.choice(history) if chance else history[0]).items():
                self._add(image, f"{name}/{entry}", f"{path}/{entry}", of_entry, chance)
            return
        content = self._content.get(inode, b"")
        if chance and is_there:
            content = _torn(content, Path(path).read_bytes(), chance)
        image[name] = content


def write(image: Image, folder: Path) -> None:
    """The image as files."""
    for name, content in image.items():
        path = Path(f"{folder}{name}")
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)


class _Recorder(apsw.VFS):
    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        super().__init__("recording", "cksmvfs", makedefault=False)

    def xOpen(self, name, flags):  # noqa: N802
        return _File(self.disk, name, flags)

    def xDelete(self, name, is_durable):  # noqa: N802
        call = super().xDelete
        if is_durable:
            self.disk.sync(str(Path(name).parent), lambda: call(name, is_durable))
        else:
            call(name, is_durable)


class _File(apsw.VFSFile):
    def __init__(self, disk, name, flags):
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name
        # SQLite's os_unix.c: the first fsync of a journal that it has made takes in the journal's folder.
        self._is_new = bool(flags[0] & _JOURNALS) and not Path(self._path).exists()
        super().__init__("cksmvfs", name, flags)

    def xSync(self, flags):  # noqa: N802
        call = super().xSync
        self._disk.sync(self._path, lambda: call(flags))
        if self._is_new:
            self._disk.sync(str(Path(self._path).parent), lambda: None)
            self._is_new = False


class _Recorded(apsw.Connection):
    def __init__(self, filename, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, vfs="recording"):  # noqa: ARG002
        super().__init__(filename, flags=flags, vfs="recording")


def _inode(found: os.stat_result) -> Inode:
    return found.st_dev, found.st_ino, stat.S_ISDIR(found.st_mode)


def _listing(folder: Path) -> dict[str, Inode]:
    with os.scandir(folder) as entries:
        return {entry.name: _inode(found) for entry in entries if (found := _stat(entry.path))}


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except FileNotFoundError:  # SQLite's, just now
        return None


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _torn(before: bytes, after: bytes, chance: Random) -> bytes:
    size = len(chance.choice([before, after]))
    parts = [chance.choice([before, after])[at : at + SECTOR].ljust(SECTOR, b"\0") for at in range(0, size, SECTOR)]
    return b"".join(parts)[:size]
