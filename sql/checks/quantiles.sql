-- check (stops the night): one row per item with a demand forecast whose quantiles are null, negative or cross
SELECT
    concat('demand of item ', item_id) AS subject,
    '0 <= q05 <= q10 <= q25 <= q50 <= q75 <= q90 <= q95' AS expected,
    concat(count(*), ' days that are not, the first ', min(target_date)) AS got
FROM demand
WHERE NOT coalesce(
    q05 >= 0 AND q05 <= q10 AND q10 <= q25 AND q25 <= q50 AND q50 <= q75 AND q75 <= q90 AND q90 <= q95
    AND NOT isnan(q95), FALSE)
GROUP BY item_id
ORDER BY subject
