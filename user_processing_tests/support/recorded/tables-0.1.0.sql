--
-- PostgreSQL database dump
--

-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: rejected_users; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rejected_users (
    partition_date date NOT NULL,
    page integer NOT NULL,
    "position" integer NOT NULL,
    reason text NOT NULL
);

--
-- Name: user_loads; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.user_loads (
    partition_date date NOT NULL,
    users_asked bigint NOT NULL,
    rows bigint NOT NULL,
    rejected bigint NOT NULL,
    csv_sha256 text NOT NULL,
    run_id text NOT NULL,
    loaded_at timestamp with time zone DEFAULT now() NOT NULL
);

--
-- Name: users; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.users (
    firstname text NOT NULL,
    lastname text NOT NULL,
    country text NOT NULL,
    username text NOT NULL,
    password text NOT NULL,
    email text NOT NULL,
    partition_date date DEFAULT (NULLIF(current_setting('user_processing.partition_date'::text, true), ''::text))::date
);

--
-- Data for Name: rejected_users; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rejected_users VALUES ('2023-01-03', 1, 0, 'Object missing required field `name`');

--
-- Data for Name: user_loads; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.user_loads VALUES ('2023-01-01', 3, 3, 0, '72587c114d4a37ff38f97f948c3e4130b0381c4016c1e150c52456b6ed3a9f23', 'f60e9e1b-d558-4200-90c9-9de423f38d9a', '2026-11-24 14:05:30.853782+00');
INSERT INTO public.user_loads VALUES ('2023-01-02', 3, 3, 0, '72587c114d4a37ff38f97f948c3e4130b0381c4016c1e150c52456b6ed3a9f23', 'f60e9e1b-d558-4200-90c9-9de423f38d9a', '2026-11-24 14:05:30.860822+00');
INSERT INTO public.user_loads VALUES ('2023-01-03', 2, 1, 1, '6ba3beac21a6f1eeb67627ddf7e94a96a26b3ab04785da2184d96633c9e9ce58', 'b0598846-8427-4bdb-95e9-27548541178e', '2026-11-24 14:05:31.173449+00');

--
-- Data for Name: users; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.users VALUES ('Ryder', 'Jones', 'New Zealand', 'sadmeercat990', 'postman', 'ryder.jones@example.com', '2023-01-01');
INSERT INTO public.users VALUES ('Taner', 'Claasen', 'Netherlands', 'beautifulbird639', 'chuang', 'taner.claasen@example.com', '2023-01-01');
INSERT INTO public.users VALUES ('Casandra', 'Van der Schans', 'Netherlands', 'bigkoala669', 'ou8123', 'casandra.vanderschans@example.com', '2023-01-01');
INSERT INTO public.users VALUES ('Ryder', 'Jones', 'New Zealand', 'sadmeercat990', 'postman', 'ryder.jones@example.com', '2023-01-02');
INSERT INTO public.users VALUES ('Taner', 'Claasen', 'Netherlands', 'beautifulbird639', 'chuang', 'taner.claasen@example.com', '2023-01-02');
INSERT INTO public.users VALUES ('Casandra', 'Van der Schans', 'Netherlands', 'bigkoala669', 'ou8123', 'casandra.vanderschans@example.com', '2023-01-02');
INSERT INTO public.users VALUES ('Taner', 'Claasen', 'Netherlands', 'beautifulbird639', 'chuang', 'taner.claasen@example.com', '2023-01-03');
INSERT INTO public.users VALUES ('Old', 'Hand', 'Norway', '', 'p\q', 'old@example.com', NULL);

--
-- Name: rejected_users rejected_users_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rejected_users
    ADD CONSTRAINT rejected_users_pkey PRIMARY KEY (partition_date, page, "position");

--
-- Name: user_loads user_loads_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.user_loads
    ADD CONSTRAINT user_loads_pkey PRIMARY KEY (partition_date);

--
-- Name: users_partition_date; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX users_partition_date ON public.users USING brin (partition_date) WITH (autosummarize='on');

--
-- PostgreSQL database dump complete
--

