"""How a job runs: device and mode, precision, CPU settings, single or on many ranks."""
