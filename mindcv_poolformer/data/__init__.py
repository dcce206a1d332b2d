"""From folders of images to batches, exact in its randomness."""
