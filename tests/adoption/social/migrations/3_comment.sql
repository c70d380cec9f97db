CREATE TABLE comment (
    comment_id INTEGER PRIMARY KEY,
    post_id INTEGER NOT NULL REFERENCES post (post_id) ON DELETE CASCADE,
    user_id INTEGER NOT NULL REFERENCES user (user_id) ON DELETE CASCADE,
    content TEXT NOT NULL
);
