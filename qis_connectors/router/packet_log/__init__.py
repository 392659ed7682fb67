"""The durable packet log: one writer, many readers, a folder on a disk. Begin at log.py; store.py names the files."""
