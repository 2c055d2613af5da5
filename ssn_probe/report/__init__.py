"""What was found, for a reader: sentences, tables, pictures, in markdown, in the terminal and in a notebook."""
