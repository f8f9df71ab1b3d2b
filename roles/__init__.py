"""One task of a run, from its settings to its end.

From the bottom up: settings, task, wiring, bookkeeping, parts, connection, role; and ps.
"""
