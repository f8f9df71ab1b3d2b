"""What a planned cluster sends, and how fast it would be."""
