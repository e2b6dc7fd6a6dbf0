"""The plan: its schema and its file."""
