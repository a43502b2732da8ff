"""A gate for speed that does not flicker: how many instructions the main operations take.

`make bench-instructions` counts them with valgrind and compares them with a baseline. README.md
says how, and what the figures mean.
"""
