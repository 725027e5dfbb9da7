-- one row per StockCode, Description and Price: an import gathers them once, so that no night reads order lines for them
SELECT "StockCode", "Description", "Price", count(*) AS lines
FROM raw_events
GROUP BY "StockCode", "Description", "Price"
ORDER BY "StockCode", "Description", "Price"
