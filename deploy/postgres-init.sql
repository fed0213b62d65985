-- Run once, on an empty volume. The other database, dagster, is POSTGRES_DB.
CREATE DATABASE users;
