"""This installation: what is started, where it listens, who may ask for what, and the audit trail."""
