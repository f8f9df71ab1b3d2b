"""The runtime of all roles: processes, clusters, sessions, checkpoints. Knows no agent or loss.

Modules from the bottom up: process, cluster, placement, peers, sessions, shared_state, checkpoints,
heartbeat.
"""
