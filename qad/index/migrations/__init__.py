"""The steps that bring the database's tables to this version, one numbered SQL file each.

A step is never changed once it is released: what it lacks is another step.  Tables are named without their schema; the
search path leads there.
"""

from __future__ import annotations

from importlib.resources import files


def migrations() -> dict[int, str]:
    """Return the SQL of every step by its version, in order."""
    steps = {
        int(item.name.partition("_")[0]): item.read_text("utf-8")
        for item in files(__name__).iterdir()
        if item.name.endswith(".sql")
    }
    return dict(sorted(steps.items()))
