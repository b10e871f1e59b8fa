"""The parts of ``benchmarks/fetch.py``: an emulated line, servers, objects, peers, cases."""
