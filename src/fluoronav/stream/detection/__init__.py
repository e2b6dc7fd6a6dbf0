"""Detection of instruments in single frames, and their identities over frames."""
