"""Exact numbers over every image once, on any number of ranks."""
