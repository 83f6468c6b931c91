"""What every room stands on: errors that users see, files that are never half-written, checksums, progress."""
