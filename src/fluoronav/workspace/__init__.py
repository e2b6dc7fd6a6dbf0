"""The workspace: the page on which a plan is made and reviewed."""
