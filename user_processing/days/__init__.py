"""What a day is, which days a run has, and how a run goes through them."""
