"""Hosts over SSH: logging in, asking, copying."""
