"""The roles of a run's tasks: local training, learner, actor, parameter server.

Modules from the bottom up: settings, task, wiring, reports, records, observers, parts, connection,
role, training; and ps. `training.train` shows a whole run in one function.
"""
