-- Three roles for the users' database. Run it as their owner, once `users_table` has made the tables:
--
--     psql --set=ON_ERROR_STOP=1 --file=deploy/roles.sql "$USERS_POSTGRES_URL"
--
-- The roles have no password and cannot log in: GRANT users_loader TO somebody who can. Running it again does no harm.

DO $$
DECLARE
    role TEXT;
BEGIN
    FOREACH role IN ARRAY ARRAY['users_owner', 'users_loader', 'users_reader'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
    END LOOP;
END
$$;

-- Everything but the password, and of the rows that were there before this pipeline too. A new column is not shown
-- until it is added here, at the end.
CREATE OR REPLACE VIEW users_without_passwords AS
SELECT firstname, lastname, country, username, email, partition_date
FROM users;

-- The owner changes tables, and makes new ones beside them; nothing that runs every day is this role.
ALTER TABLE users OWNER TO users_owner;
ALTER TABLE user_loads OWNER TO users_owner;
ALTER TABLE rejected_users OWNER TO users_owner;
ALTER TABLE user_processing_version OWNER TO users_owner;
ALTER TABLE user_api_requests OWNER TO users_owner;
ALTER VIEW users_without_passwords OWNER TO users_owner;
DO $$
BEGIN
    EXECUTE format(
        'GRANT USAGE, CREATE ON SCHEMA %s TO users_owner',
        (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'users'::regclass)
    );
END
$$;

-- The loader replaces days: it reads, adds and deletes rows, and writes the ledger. USERS_POSTGRES_URL names this one.
-- Of the tables' version it is enough to read it.
REVOKE ALL ON users, user_loads, rejected_users, user_processing_version, users_without_passwords FROM users_loader;
GRANT SELECT ON user_processing_version TO users_loader;
GRANT SELECT, INSERT, DELETE ON users, rejected_users TO users_loader;
GRANT SELECT, INSERT, UPDATE ON user_loads TO users_loader;
-- It counts its requests, so that all runs together keep to the API's limit.
REVOKE ALL ON user_api_requests FROM users_loader, users_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON user_api_requests TO users_loader;

-- The reader sees users without passwords, and how each day went.
REVOKE ALL ON users, user_loads, rejected_users, user_processing_version, users_without_passwords FROM users_reader;
GRANT SELECT ON users_without_passwords, user_loads TO users_reader;
