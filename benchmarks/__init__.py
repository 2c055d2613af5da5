"""How fast the probe is, as ratios to a plain forward pass or a plain `generate` in the same run. Never a test."""
