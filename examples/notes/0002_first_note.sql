INSERT INTO notes VALUES (1, 'written once');
