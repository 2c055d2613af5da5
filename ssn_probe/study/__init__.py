"""What a recipe computes: steps, measurements, sets, arms and statistics, as tables. No sentence is made here."""
