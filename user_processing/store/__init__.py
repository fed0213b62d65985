"""Where users go: the files of a day, the tables, and the database that holds them."""
