# Sourced by the comparisons in this folder. They define `run VERB [OPTION ...]`: intentcast on one of their lakes, as they set it.
# What is there already is kept. Bodies with variables are subshells: these are nobody else's.

# What tells how an item sells, as src/model/demand/history.rs says; coverage.py reads it.
# shellcheck disable=SC2034
how_items_sell="SELECT item_id, max(days_since_first_seen) + 1 AS seen,
    sum(CASE WHEN in_stock THEN 1 ELSE 0 END) AS days,
    sum(CASE WHEN in_stock AND units > 0 THEN 1 ELSE 0 END) AS sales,
    sum(CASE WHEN in_stock THEN units ELSE 0 END) AS units,
    sum(CASE WHEN in_stock THEN units * units ELSE 0 END) AS squares
FROM item_days GROUP BY item_id"

later() { # DAY DAYS
    date -u -d "$1 + $2 days" +%F
}

# The shop that most comparisons ask about, of USERS (4000), ITEMS (48) and DAYS (142).
simulated() { # LAKE
    [ -f "$1.done" ] && return
    rm -rf "${1:?}"
    "$job" simulate --to "$1" --users "${USERS:-4000}" --items "${ITEMS:-48}" --days "${DAYS:-142}" --seed 17
    touch "$1.done"
}

imported() ( # LAKE SET FILE ...
    lake_at=$1
    shift
    [ -f "$lake_at.done" ] && exit
    rm -rf "${lake_at:?}"
    "$job" import "$@" --to "$lake_at"
    touch "$lake_at.done"
)

# Trains, and prints the version; without one it fails, so that no champion is taken for it.
trained() { # [OPTION ...]
    run train "$@" | sed -n 's/^model \([^ ]*\) .*/\1/p' | grep .
}

# What there is to say of each user, on some dates from DAY on, into TO.0.csv, TO.1.csv and so on.
asked_later() ( # TO COLUMNS_AND_SOURCE DAY STEP_DAYS DATES [OPTION ...]
    answers=$1 columns=$2 first=$3 step_days=$4 dates=$5
    shift 5
    for place in $(seq 0 $((dates - 1))); do
        run sql --date "$(later "$first" $((step_days * place)))" --format csv "$@" \
            -c "SELECT user_id, $columns" >"$answers.$place.csv"
    done
)

# The probability that each user buys.
scored_later() ( # TO VERSION DAY STEP_DAYS DATES [OPTION ...]
    answers=$1 scorer=$2
    shift 2
    asked_later "$answers" "score_intents(features, '$scorer')['p_purchase'] AS p FROM model_input" "$@"
)

# Who bought on which days before DAY.
bought_before() { # TO DAY
    [ -f "$1" ] && return
    run sql --date "$2" --format csv \
        -c "SELECT DISTINCT user_id, CAST(ts AS DATE) AS day FROM events WHERE event_type = 'purchase'" >"$1.part"
    mv "$1.part" "$1"
}
