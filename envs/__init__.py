"""What `environments` finds behind a Gym id; it imports this package, never the other way round."""
