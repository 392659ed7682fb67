"""What has just been stored, still in memory, for the readers that wait for it.

Readers of the same share one channel: what a commit group holds for them is put together once, as one batch. Nothing
is queued for a single reader. Each goes along the channel's chain of groups by itself, and one that falls behind what
is still held finds its chain cut and goes to the store instead, so a reader that is slow, or has stopped, holds up
nobody and fills no memory.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock

import pyarrow as pa

from qis_connectors.request import Request
from qis_connectors.router.packet_log.bell import Bell
from qis_connectors.router.packet_log.selection import Scorer, kept

MAX_BYTES = 16 << 20
"""What all channels together keep."""

MERGE_ROWS = 1024
"""A reader that is several groups behind gets them as one batch of about this many rows at most."""

_BATCH_BYTES = 8 << 10  # what Arrow's own objects take for a batch of 22 columns, however few its rows


class _Group:
    """What one commit group holds for one channel; without batches, a place in the chain.

    `unfiltered`: the channel whose filter, scorer and columns are still to be applied to the batches.
    """

    def __init__(self, cursor: int, batches: list[pa.RecordBatch], unfiltered: "Channel | None" = None) -> None:
        self.cursor = cursor
        self.batches = batches
        self.next: _Group | None = None
        self.is_cut = False
        self._unfiltered = unfiltered
        self._filtering = Lock()

    def batch(self) -> pa.RecordBatch | None:
        """All of it, put together by the first who asks, for the log's thread has others to serve; None once dropped.

        Without a filter it takes no lock: at worst two put the same together at once.
        """
        if self._unfiltered:
            self._filter()
        batches = self.batches
        if len(batches) > 1:
            batches = [pa.concat_batches(batches)]
            if self.batches:
                self.batches = batches
        return batches[0] if batches else None

    def _filter(self) -> None:
        with self._filtering:
            channel, batches = self._unfiltered, self.batches
            if channel and batches:
                whole = batches[0] if len(batches) == 1 else pa.concat_batches(batches)
                wanted = kept(whole, channel.request.where, channel.scorer).select(list(channel.request.columns))
                if self.batches:
                    self.batches = [wanted]
                self._unfiltered = None  # last: who finds it None takes the batches as they are

    def drop(self) -> None:
        """For the feed, which holds the lock. The last of a chain stays joined to what comes next."""
        self.batches = []
        if self.next:
            self.is_cut = True  # first: who finds no next one looks for the cut
            self.next = None


class Channel:
    """What readers with one and the same request get to see, and the bell of each."""

    def __init__(self, request: Request, scorer: Scorer | None, head: int) -> None:
        self.request = request
        self.scorer = scorer
        self.last = _Group(head, [])
        self.bells: list[Bell] = []

    def put(self, stored: Sequence[tuple[str, pa.RecordBatch]], cursor: int) -> int:
        """Take over what matches; the bytes it keeps alive. For the feed, which holds the lock."""
        batches = [batch for address, batch in stored if self.request.pattern.matches(address)]
        if not batches:
            return 0
        names = list(self.request.columns)
        if self.request.where or self.scorer:
            self.append(_Group(cursor, batches, self))
        else:
            if names != batches[0].schema.names:
                batches = [batch.select(names) for batch in batches]
            self.append(_Group(cursor, batches))
        return sum(batch.get_total_buffer_size() + _BATCH_BYTES for batch in batches)

    def append(self, group: _Group) -> None:
        """For the feed, which holds the lock."""
        before, self.last = self.last, group
        before.next = self.last
        self.ring()

    def ring(self) -> None:
        for bell in self.bells:
            bell.ring()


class Reader:
    """One reader's place in a channel. Not for sharing between threads."""

    def __init__(self, channel: Channel, feed: "Feed") -> None:
        self._channel = channel
        self._feed = feed
        self._group = channel.last
        self.bell = Bell()

    def catch_up(self) -> None:
        """Go to the channel's end: what is stored from here on will be handed out."""
        self._group = self._channel.last

    def take(self, position: int) -> tuple[list[pa.RecordBatch], int] | None:
        """The batches stored after `position`, some of them where there are many, and the cursor they lead to.

        None where the chain is cut: the store has what comes next.
        """
        batches: list[pa.RecordBatch] = []
        rows = 0
        while rows < MERGE_ROWS and (following := self._group.next):
            if following.cursor > position:
                batch = following.batch()
                if batch is None:
                    return (batches, self._group.cursor) if batches else None
                if batch.num_rows:
                    batches.append(batch)
                    rows += batch.num_rows
            self._group = following
        if batches:
            return batches, self._group.cursor
        return None if self._group.is_cut else ([], position)

    def reached(self, position: int) -> int:
        """The end of what was looked through, where nothing was found after `position`."""
        with self._feed.lock:
            is_at_end = not (self._group.next or self._group.is_cut)
            return max(position, self._feed.head if is_at_end else self._group.cursor)

    def wait(self, seconds: float) -> bool:
        """Until there may be something to take, for so long at most; whether there may be."""
        return self._feed.is_closed or self.bell.wait(seconds)


class Feed:
    """From the log's thread to the readers' threads, from the cursor `head` on."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.is_closed = False
        self.lock = Lock()
        self._channels: dict[Request, Channel] = {}
        self._kept: deque[tuple[_Group, int]] = deque()  # and its bytes; oldest first
        self._kept_bytes = 0

    @contextmanager
    def reader(self, request: Request, scorer: Scorer | None = None) -> Iterator[Reader]:
        """A place at the end of the channel of this request, whatever its `since`; `scorer` is that of its
        `similar_to`."""
        key = replace(request, since=0)
        with self.lock:
            if key not in self._channels:
                self._channels[key] = Channel(key, scorer, self.head)
            channel = self._channels[key]
            reader = Reader(channel, self)
            channel.bells.append(reader.bell)
        try:
            yield reader
        finally:
            with self.lock:
                channel.bells.remove(reader.bell)
                if not channel.bells:
                    del self._channels[key]

    def publish(self, stored: Sequence[tuple[str, pa.RecordBatch]], head: int) -> None:
        """One commit group: its new packets with their addresses in the order of their cursors, the last one `head`."""
        with self.lock:
            self.head = head
            for channel in self._channels.values():
                if size := channel.put(stored, head):
                    self._kept.append((channel.last, size))
                    self._kept_bytes += size
            while self._kept_bytes > MAX_BYTES:
                group, size = self._kept.popleft()
                group.drop()
                self._kept_bytes -= size

    def pass_over(self, head: int) -> None:
        """Packets up to `head` are stored not kept here: a group without any sends readers to the store."""
        with self.lock:
            self.head = head
            for channel in self._channels.values():
                channel.append(_Group(head, []))

    def close(self) -> None:
        """Nothing more will come; whoever waits need not."""
        with self.lock:
            self.is_closed = True
            for channel in self._channels.values():
                channel.ring()
