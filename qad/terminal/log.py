"""The log of a run: JSON lines below ``log/``, one file per run of a stage; the only place where times stand."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from qad.storage.atomic import make_folder, storage_errors

_STANDARD = set(vars(logging.makeLogRecord({})))


class JsonLines(logging.Formatter):
    """One JSON document a record: time (UTC), level, logger, message, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        document |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str, ensure_ascii=False)


class LogFile(logging.FileHandler):
    """A log file that gives way: what cannot be written (disk full) must not hide the error that ends the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing of a full disk, which the run reports itself."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file, also when its last lines find no room."""
        with suppress(OSError):
            super().close()


@contextmanager
def stage_log(folder: Path, stage: str) -> Iterator[Path]:
    """Write the records of the logger ``qad`` to a new file in `folder` while the block runs, and yield its path."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    path = folder / f"{stamp}-{stage}-{os.getpid()}.jsonl"
    with storage_errors(path):
        make_folder(folder)
        handler = LogFile(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("qad")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield path
    except Exception:
        logger.exception("failed")
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()
