"""The numbers of channels that images are read with."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by Pillow's names
CHANNELS = f"one of {', '.join(map(str, MODES))}"
