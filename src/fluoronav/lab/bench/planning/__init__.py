"""`fluoronav bench planning`: one module per part, each with `measure` and `table`."""
