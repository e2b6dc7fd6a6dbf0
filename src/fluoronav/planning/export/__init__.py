"""The plan for others: the stream, the printer, 3D Slicer, the PACS."""
