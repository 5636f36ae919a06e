"""What is kept: settings, tables, queries by noun, and files."""
