"""A page to try a bundle in the browser."""
