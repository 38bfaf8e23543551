"""Public laws, and stores that count, slow down or tear."""
