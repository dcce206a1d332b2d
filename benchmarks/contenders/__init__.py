"""What each process of a benchmark runs. These modules import one implementation each."""
