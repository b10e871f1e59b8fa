"""One thread for numpy's matrix products: ours are small, and threads that wait for each other cost several times the work.

Measured on two busy cores: a fit of the factor model took 21 s with OpenBLAS's own threads and 3 s with one.
"""

from __future__ import annotations

from functools import cache
from typing import Any


def one_blas_thread() -> Any:
    """Return a context manager that holds BLAS to one thread."""
    return _controller().limit(limits=1, user_api="blas")


@cache
def _controller() -> Any:
    import numpy as np  # noqa: F401 - its BLAS must be loaded before it is looked for
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
