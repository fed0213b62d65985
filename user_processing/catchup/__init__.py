"""Which days are missing, what is known of them, and the runs that are asked for."""
