"""X-ray images: files, the field of view, the flat panel, its noise, and filters."""
