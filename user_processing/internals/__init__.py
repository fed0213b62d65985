"""What leans on Dagster's private API. Nothing else in the package may import `dagster._*`."""
