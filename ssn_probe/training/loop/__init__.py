"""Training: rows, loss, steps, processes, and where it goes on after an interruption."""
