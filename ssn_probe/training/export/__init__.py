"""A delta in a model: merged into its weights, written as a folder, and taken out again bit for bit."""
