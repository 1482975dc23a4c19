"""What a person is told when the stack cannot do its work: one sentence each, never a traceback."""

import errno

FULL_DISK_TEXTS = (
    "No space left on device",
    "Disk quota exceeded",
    "wrote only",  # PostgreSQL's words for a write that was cut short
    "File too large",  # these two are what a limit on file sizes (ulimit -f) makes of the same
    "File size limit exceeded",
)
FULL_DISK_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StackError(Exception):
    """Raised when the stack cannot start or go on; the message is one sentence for the person at the terminal."""


class Stopped(Exception):
    """Raised inside a wait when the person asked for the end before the start was through."""


def sentence_for(error: OSError) -> str:
    """Say an operating system's error in one sentence, with the file it is about."""
    if error.errno in FULL_DISK_NUMBERS:
        return f"The disk is full: {error.filename or 'the data folder'} could not be written."
    if isinstance(error, PermissionError):
        return f"No permission for {error.filename}: it belongs to another account; set DATA_DIR to a folder of yours."
    return f"{error.filename or 'The system'}: {error.strerror or error}."


def failure_of(what: str, output: str) -> StackError:
    """Make the error for a program that failed, from the last telling line that it wrote."""
    if any(text in output for text in FULL_DISK_TEXTS):
        return StackError(f"The disk is full: {what} could not write its files.")
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "rror" in line] or lines or ["it said nothing"]
    return StackError(f"{what} failed: {telling[-1]}")
