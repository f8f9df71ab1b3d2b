"""Code shared by the trainer and the frontend; uses only the standard library."""
