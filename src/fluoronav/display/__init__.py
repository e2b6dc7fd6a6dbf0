"""What other programs of an operating room see of the pipeline, and give it, in their own protocols."""
