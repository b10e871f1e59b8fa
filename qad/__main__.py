"""``qad`` and ``python -m qad``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] in (["--version"], ["-V"]):  # answered before Typer is imported
        from qad import __version__

        print(f"qad {__version__}")
        return
    from qad.cli.main import app

    app(prog_name="qad")


if __name__ == "__main__":
    main()
