"""The public yardstick of identification: planted organisms, methods, rows, one table. See docs/identification.md."""
