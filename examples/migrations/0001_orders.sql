CREATE SCHEMA IF NOT EXISTS example;
CREATE TABLE IF NOT EXISTS example.orders (id bigint PRIMARY KEY, item text NOT NULL);
