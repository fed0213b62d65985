"""What runs when nothing is configured: a Postgres from a wheel, and a stand-in for the API."""
