"""What results mean: metrics, intervals, tests and verdicts, from NumPy arrays alone."""
