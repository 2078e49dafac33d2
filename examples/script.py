"""A script: new prices, and the pages of all sites that show them are absent. It need not know their frameworks."""

import sys

from storeroom import cache
from storeroom.pages import Pages


def main(*prices: str) -> None:
    """Set prices, each given as item=price; two scripts at once work one after the other."""
    with cache.lock("prices", timeout="1m"):
        for item, _, price in (given.partition("=") for given in prices):
            cache.set(f"price:{item}", float(price), timeout=None)
    Pages("default").invalidate(tags=["items"])
    print(f"{len(prices)} prices are new.")


if __name__ == "__main__":
    main(*sys.argv[1:])
