"""What ``benchmarks/detection.py`` is made of: a second simulation that shares no code with ``qad.simulation``, and baselines."""
