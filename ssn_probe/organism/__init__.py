"""The model organism: a small transformer of an invented world, so that every study also runs offline."""
