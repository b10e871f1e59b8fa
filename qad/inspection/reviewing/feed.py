"""The labels file while others write to it: what is new is read from where the last reading ended."""

from __future__ import annotations

from pathlib import Path

from qad.storage.labels import Label, parse_label


class LabelFeed:
    """Follows a labels file.

    Parameters
    ----------
    path : Path
        It may not exist yet.

    Attributes
    ----------
    last : dict of int to Label
        The last label of each target, those taken back left out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._inode = -1
        self.last: dict[int, Label] = {}

    def poll(self) -> list[Label]:
        """Read what was appended since, apply it, and return it; a line that is not finished yet waits."""
        try:
            with self._path.open("rb") as handle:
                status = self._path.stat()
                if status.st_ino != self._inode or status.st_size < self._offset:
                    # another file has taken the name (restored, copied in): read it from the start
                    self._offset, self._inode = 0, status.st_ino
                    self.last.clear()
                handle.seek(self._offset)
                content = handle.read()
        except OSError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        new = [label for line in whole.split(b"\n") if line and (label := parse_label(line)) is not None]
        for label in new:
            if label.label:
                self.last[label.targetid] = label
            else:
                self.last.pop(label.targetid, None)
        return new
