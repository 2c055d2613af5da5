"""What runs leave on disk: folders, the cache of measurements, past runs."""
