"""What makes a plan unsafe or stale."""
