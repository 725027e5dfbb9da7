-- one row per user_id with master data; canonical_user_id is the login that a guest turned out to be
SELECT user_id, canonical_user_id, signed_up_at, country, consent, excluded, _file FROM raw_users
