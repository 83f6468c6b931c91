"""What every other package may import: errors that users see, files that are whole or absent, checksums, progress."""
