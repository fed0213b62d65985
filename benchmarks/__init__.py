"""What things cost, measured beside a limit or a peer in one run; `make bench`."""
