"""Streams of tiny models whose symbols are pinned; see `make`."""
