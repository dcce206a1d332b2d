"""Kernels and layers: how the networks compute, and on which device."""
