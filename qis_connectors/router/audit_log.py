"""The audit log: who asked for what, when, and what was decided; a JSON object a line, each with the hash of the last.

    {"n": 7, "at": "2026-01-31T12:00:00.123456+00:00", "who": "site-a", "verb": "deposit",
     "what": "clinical.tuberculosis/bcg_vaccine", "decision": "stored 3, duplicates 0", "previous": SHA-256 in hex}

`previous` is the hash of the line before as it stands, without its end of line; 64 zeros before the first. So a line
that was changed, taken out or put in shows; that the newest were cut off shows to who has noted a later hash, which
`stats` tells. A line is with the operating system before its call is answered, and on the disk a second later.
"""

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import chain
from pathlib import Path
from threading import Event, Lock, Thread

from qis_connectors.errors import QisError
from qis_connectors.router.packet_log.journal import sync_folder

FILE_BYTES = 16 << 20
KEPT_FILES = 64
"""The oldest beyond these are deleted: a gigabyte in all. The chain of the others goes on where those ended."""

SYNC_SECONDS = 1.0
START = "0" * 64
logger = logging.getLogger(__name__)


class AuditLogError(QisError):
    """The audit log cannot be opened or read."""


class AuditLog:
    """The one in `folder`, whose files are NNNNNNNN.jsonl; it goes on where it ended.

    The half line that a crash may leave at its end is cut off, which a line of its own says.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self.lines, self.head = 0, START
        self._lost = self._size = 0
        self._is_dirty, self._is_closed = Event(), Event()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._number, torn = self._recover()
        except OSError as error:
            raise AuditLogError(f"audit log {folder} cannot be opened: {error.strerror}") from None
        self._thread = Thread(target=self._run, name="qis-audit")
        self._thread.start()
        if torn:
            self.record("router", "mend", "audit log", f"cut {torn} bytes of a line that was not written to its end")

    def record(self, who: str, verb: str, what: str, decision: str) -> None:
        """Write one line: `who` asked (a site, or where from), the `verb` on `what`, and the `decision` on it.

        What a packet holds is not for here. Never raises: of lines that cannot be written the next one tells (`lost`).
        """
        with self._lock:
            line = {"n": self.lines + 1, "at": datetime.now(UTC).isoformat(), "who": who, "verb": verb, "what": what}
            line |= {"decision": decision, **({"lost": self._lost} if self._lost else {}), "previous": self.head}
            written = json.dumps(line).encode()
            try:
                if self._size and self._size + len(written) > FILE_BYTES:
                    self._rotate()
                self._write(written + b"\n")
            except OSError as error:
                self._lost += 1
                logger.error("the audit log cannot be written: %s", error.strerror)
                return
            self.lines, self.head, self._lost = self.lines + 1, sha256(written).hexdigest(), 0
        self._is_dirty.set()

    def close(self) -> None:
        """With everything on the disk."""
        self._is_closed.set()
        self._is_dirty.set()
        self._thread.join()
        os.fsync(self._descriptor)
        os.close(self._descriptor)

    def _recover(self) -> tuple[int, int]:
        """The number of the file to go on in, and how many bytes of a torn line were cut off its end."""
        files = files_of(self._folder)
        number = int(files[-1].stem) if files else 1
        self._open(number)
        content = files[-1].read_bytes() if files else b""
        whole = content.rfind(b"\n") + 1
        os.ftruncate(self._descriptor, whole)
        self._size = whole
        # After a crash just behind a rotation the newest file has no line yet.
        for text in chain([content[:whole]], (file.read_bytes() for file in reversed(files[:-1]))):
            if lines := text.splitlines():
                self.lines, self.head = _number(lines[-1]), sha256(lines[-1]).hexdigest()
                break
        return number, len(content) - whole

    def _open(self, number: int) -> None:
        path = self._folder / f"{number:08}.jsonl"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        sync_folder(self._folder)

    def _write(self, line: bytes) -> None:
        written = os.write(self._descriptor, line)
        if written < len(line):
            os.ftruncate(self._descriptor, self._size)
            raise OSError(0, "there is no room")
        self._size += written

    def _rotate(self) -> None:
        ended = self._descriptor
        os.fsync(ended)
        self._open(self._number + 1)
        os.close(ended)
        self._number, self._size = self._number + 1, 0
        for old in files_of(self._folder)[:-KEPT_FILES]:
            old.unlink()

    def _run(self) -> None:
        while not self._is_closed.is_set():
            self._is_dirty.wait()
            self._is_closed.wait(SYNC_SECONDS)
            self._is_dirty.clear()
            with self._lock:
                descriptor = os.dup(self._descriptor)
            try:
                os.fsync(descriptor)
            except OSError as error:
                logger.error("the audit log is not on the disk: %s", error.strerror)
            finally:
                os.close(descriptor)


def files_of(path: Path) -> list[Path]:
    """The files of an audit log, oldest first; `path` is its folder, or one of them."""
    return sorted(path.glob("*.jsonl")) if path.is_dir() else [path]


def check(path: Path) -> tuple[int, str, list[str]]:
    """Read an audit log, a folder or a file of it: its lines, the hash of the last one, and what is wrong with it.

    AuditLogError where there is none, or it cannot be read.
    """
    lines, head, found = 0, "", []
    files = files_of(path)
    if not files:
        raise AuditLogError(f"{path}: holds no audit log")
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise AuditLogError(f"{file}: {error.strerror}") from None
        for at, fault, hashed in _checked(content, head):
            lines, head = lines + 1, hashed
            found += [f"{file}, line {at}: {fault}"] if fault else []
    return lines, head, found


def _checked(content: bytes, head: str) -> Iterator[tuple[int, str, str]]:
    """Of each line its number in the file, what is wrong with it, and its hash."""
    whole, _, torn = content.rpartition(b"\n")
    for at, line in enumerate(whole.split(b"\n") if whole else [], 1):
        try:
            told = json.loads(line)
            previous, number = told["previous"], int(told["n"])
        except (ValueError, TypeError, KeyError):
            previous, number, fault = head, 0, "is no line of an audit log"
        else:
            fault = ""
        if not fault and previous != (head or (START if number == 1 else previous)):
            fault = "does not follow the line before: one of them was changed, or one between them taken out"
        head = sha256(line).hexdigest()
        yield at, fault, head
    if torn:
        yield (
            whole.count(b"\n") + 2 if whole else 1,
            "was not written to its end; a router cuts it off as it starts",
            head,
        )


def _number(line: bytes) -> int:
    try:
        return int(json.loads(line)["n"])
    except (ValueError, TypeError, KeyError):
        return 0
