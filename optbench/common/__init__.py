"""What every room may use: errors, the console, files, text."""
