"""Evaluates, films and exports checkpoints.

`roles.modes` has the command-line modes that use this package.
"""
