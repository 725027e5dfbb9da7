#!/bin/sh
# Runs the whole product on a simulated shop: a small model, two nights and a report, with local files on the CPU. Called by `make demo`.
# A step is skipped if its result exists, so an interrupted demo resumes.
set -eu
job=${1:?usage: demo.sh PATH_OF_INTENTCAST}
lake=demo/lake
output=demo/out
run() { echo "\$ intentcast $*"; "$job" "$@"; }

if [ ! -f demo/lake.done ]; then
    rm -rf demo && mkdir -p demo
    run simulate --to "$lake" --users 4000 --items 80 --days 150 --seed 7 --faults
    touch demo/lake.done
fi
if [ ! -f "$output/models/champion" ]; then
    run train --lake "$lake" --output "$output" --date 2026-05-25
fi
run nightly --lake "$lake" --output "$output" --date 2026-05-25
run nightly --lake "$lake" --output "$output" --date 2026-05-26

show() { echo; echo "-- $1"; "$job" sql --output "$output" -c "$2"; }
show "who is about to buy" "SELECT user_id, round(p_purchase, 3) AS p_purchase, round(p_churn, 3) AS p_churn, round(expected_spend, 2) AS expected_spend, segment, events_seen FROM intent ORDER BY p_purchase DESC LIMIT 8"
show "segments" "SELECT segment, users, round(p_purchase_mean, 3) AS p_purchase, round(p_churn_mean, 3) AS p_churn FROM segment ORDER BY users DESC"
show "what to order today" "SELECT item_id, on_hand, on_order, lead_time_days, round(reorder_point, 1) AS reorder_point, order_quantity, stock_out_risk, reason FROM replenishment WHERE order_quantity > 0 ORDER BY stock_out_risk DESC LIMIT 8"
show "demand of the coming week" "SELECT item_id, target_date, round(mean, 2) AS mean, round(q50, 2) AS q50, round(q90, 2) AS q90 FROM demand WHERE item_id = (SELECT item_id FROM demand GROUP BY item_id ORDER BY sum(mean) DESC LIMIT 1) ORDER BY target_date LIMIT 7"
show "recommendations for one user" "SELECT * FROM recommendation WHERE user_id = (SELECT user_id FROM intent ORDER BY p_purchase DESC LIMIT 1) ORDER BY rank LIMIT 5"
show "quarantined rows by reason" "SELECT reason, count(*) AS rows FROM quarantine GROUP BY reason ORDER BY reason"
echo
run report --lake "$lake" --output "$output" --date 2026-05-26
cat <<END

Report:  $output/reports/2026-05-26/index.html (open it in a browser), and orders.xlsx next to it
Tables:  $output/tables/<name> (Delta; any Delta reader opens them)
Next:    $job sql --lake $lake --output $output          a prompt over lake, features, tables and functions
         $job nightly --lake $lake --output $output --date 2026-05-27
         $job models --output $output
         $job rollback --output $output --date 2026-05-26
END
