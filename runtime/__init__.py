"""The ground a role stands on; knows no agent, loss or environment.

From the bottom up: process, cluster, placement, peers, sessions, shared_state, checkpoints,
heartbeat.
"""
