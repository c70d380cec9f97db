SELECT id, body, stars FROM notes WHERE body = $1
