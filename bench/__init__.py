"""Measurements of fastws: the codec, echo servers and clients, next to their peers.

`python -m bench` runs all of it; `python -m pytest bench` the cases of the codec alone.
"""
