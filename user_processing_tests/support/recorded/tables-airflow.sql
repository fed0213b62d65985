--
-- What the Airflow pipeline's create_table and store_user leave behind.
--

CREATE TABLE IF NOT EXISTS users (
    firstname TEXT NOT NULL,
    lastname TEXT NOT NULL,
    country TEXT NOT NULL,
    username TEXT NOT NULL,
    password TEXT NOT NULL,
    email TEXT NOT NULL
);

INSERT INTO users VALUES ('a', 'b', 'c', 'd', 'e', 'f');
INSERT INTO users VALUES ('', '', '', '', '', '');
INSERT INTO users VALUES ('a', 'b', 'c', 'd', 'e', 'f');
