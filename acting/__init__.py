"""Acting: unrolls of agent and environments, and the processes that environments run in."""
