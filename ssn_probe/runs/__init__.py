"""What runs leave on disk: run folders, the cache of measurements, the history of runs."""
