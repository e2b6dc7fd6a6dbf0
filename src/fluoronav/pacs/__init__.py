"""The PACS side: series come in, cases are made of them, results go back. A process of its own."""
