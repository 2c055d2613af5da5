"""Training: rows, loss, steps, processes, and how an interrupted training continues."""
