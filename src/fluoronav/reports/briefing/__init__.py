"""The briefing: what the team reads before the operation."""
