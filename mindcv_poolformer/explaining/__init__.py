"""Where a network looks: Grad-CAM, and what it is laid over."""
