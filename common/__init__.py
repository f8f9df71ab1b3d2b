"""What the trainer and the frontend share; the standard library only."""
