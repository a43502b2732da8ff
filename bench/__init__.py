"""Benchmarks of fastws: the codec, echo servers and clients, compared to their peers.

`python -m bench` runs everything; `python -m pytest bench` runs only the cases of the codec.
"""
