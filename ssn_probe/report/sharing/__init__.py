"""A run as a data set that others may have: tables, a card and Croissant metadata, without texts or private names."""
