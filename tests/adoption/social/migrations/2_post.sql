CREATE TABLE post (
    post_id INTEGER PRIMARY KEY,
    user_id INTEGER NOT NULL REFERENCES user (user_id) ON DELETE CASCADE,
    content TEXT NOT NULL
);
