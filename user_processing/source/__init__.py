"""Where users come from: the API, its contract, its transport, and how fast it may be asked."""
