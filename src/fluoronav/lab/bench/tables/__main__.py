"""Renews the tables of the documentation."""

from fluoronav.lab.bench.tables import CHECKOUT, stale_pages


def main() -> None:
    """Renews the pages, and names those that it has changed."""
    for page, text in stale_pages().items():
        page.write_text(text)
        print(f"renewed: {page.relative_to(CHECKOUT)}")


if __name__ == "__main__":
    main()
