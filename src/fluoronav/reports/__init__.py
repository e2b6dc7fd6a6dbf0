"""Documents for people, as HTML and PDF from the same data."""
