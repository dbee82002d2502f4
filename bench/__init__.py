"""The benchmark: Holdfast beside Mosquitto, in the same run, on the same machine.

``python -m bench`` runs it; ``docs/internals/benchmarks.md`` says how it measures and how to read
what it prints.
"""
