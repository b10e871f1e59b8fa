"""Parts of ``benchmarks/extract.py`` and ``benchmarks/build_grid.py``."""
