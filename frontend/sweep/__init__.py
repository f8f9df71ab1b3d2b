"""Sweeps: many trainings of one process each, from the settings that are swept to the hosts."""
