"""`fluoronav bench pacs`: the node beside a real archive."""
