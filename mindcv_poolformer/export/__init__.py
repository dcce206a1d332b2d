"""From a checkpoint to a folder that classifies images without this project's model code."""
