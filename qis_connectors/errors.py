"""The one exception a caller has to know."""


class QisError(Exception):
    """What the caller gave is wrong or cannot be reached; the text is one line, fit to be shown as it is."""
