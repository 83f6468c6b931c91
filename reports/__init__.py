"""Result lines and images -> tables and figures. No network runs in this package."""
