-- one row per customer and country: an import gathers them once
SELECT "Customer ID", "Country", count(*) AS lines, min("InvoiceDate") AS first_invoiced_at
FROM raw_events
WHERE "Customer ID" IS NOT NULL
GROUP BY "Customer ID", "Country"
ORDER BY "Customer ID", "Country"
