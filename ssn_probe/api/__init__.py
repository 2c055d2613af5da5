"""What a user calls from Python: run, preview, look at, verify."""
