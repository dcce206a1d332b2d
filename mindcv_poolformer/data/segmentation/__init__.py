"""Scenes with a label for each pixel, from folders to batches."""
