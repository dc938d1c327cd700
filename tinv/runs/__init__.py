"""One run: what a configuration may hold, its folder, and the commands fit, validate, test and predict."""
