"""Published numbers, tables and figures: everything here reads files, nothing runs a network."""
