"""One task of a run, from its settings to its end.

From the bottom up: settings, task, wiring, reports, records, observers, parts, connection, role,
training; and ps. `training` shows a run in one function.
"""
