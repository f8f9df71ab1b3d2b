"""Evaluation of checkpoints: whole games played, recorded, filmed and exported.

`roles.modes` has the modes of the command line that use it.
"""
