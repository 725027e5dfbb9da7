-- one row per user_id with master data; canonical_user_id says which login a guest turned out to be
SELECT user_id, canonical_user_id, signed_up_at, country, consent, excluded FROM raw_users
