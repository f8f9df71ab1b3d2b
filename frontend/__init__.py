"""Parts of the frontend: a cluster's CSV, hosts here and over SSH, tmux, one task's supervisor.

Nothing in here imports TensorFlow, knows a training flag, or builds a shell string from user input.
"""
