"""Result lines and images -> tables and figures. Nothing here runs a network."""
