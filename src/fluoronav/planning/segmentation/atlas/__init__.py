"""The atlas engine: one labelled chest CT, registered to a scan."""
