"""The frontend: starts, watches and stops the cluster that a CSV describes, over SSH and tmux.

Nothing in here imports TensorFlow, knows a training flag, or builds a shell string from user input.
"""
