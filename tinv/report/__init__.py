"""Published numbers, tables and pictures: everything here reads files, nothing runs a network."""
