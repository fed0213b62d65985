"""What the assets are backed by: the API, the database, the files of a day."""
