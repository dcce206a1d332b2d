"""Measurements, side by side with other implementations."""
