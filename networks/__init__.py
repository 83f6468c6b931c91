"""Any network by name and weights: safe reading, checksums, widths, devices and precisions."""
