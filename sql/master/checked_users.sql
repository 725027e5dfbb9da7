-- one row per row of the lake's users but the erased, with the reason if it is bad
SELECT
    non_blank(user_id) AS user_id,
    -- An id that turns out to be an erased person's is left out too, and names that person no more.
    CASE WHEN NOT is_erased(canonical_user_id) THEN non_blank(canonical_user_id) END AS canonical_user_id,
    signed_up_at, country, consent,
    CASE WHEN is_erased(canonical_user_id) THEN true ELSE excluded END AS excluded,
    _file,
    CASE
        WHEN non_blank(user_id) IS NULL THEN 'null_id'
        WHEN signed_up_at < lake_first_at() THEN 'time_too_early'
    END AS reason,
    CASE WHEN non_blank(user_id) IS NOT NULL AND signed_up_at < lake_first_at() THEN 'signed_up_at' END AS column_name
FROM lake_users
WHERE NOT is_erased(user_id)
