"""What runs on a host: the agent that answers the frontend, supervisors, tmux, the firewall."""
