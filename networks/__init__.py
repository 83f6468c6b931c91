"""Any network by name and weights: safe reading, checksums, widths, cuts, and training a classifier from scratch."""
