"""The navigation display of the operating room: a web page and its server."""
