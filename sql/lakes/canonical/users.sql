-- one row per user_id with master data; canonical_user_id is the login that a guest turned out to be
SELECT
    user_id, -- login or guest
    canonical_user_id, -- the login that a guest turned out to be
    signed_up_at, -- time of the sign-up, of a guest the time of that login, UTC
    country, -- country of the customer
    consent, -- may be scored; null: features.consent_default
    excluded, -- is left out of features: staff, bots
    _file -- file of the row
FROM raw_users
