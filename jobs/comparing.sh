# Sourced by the comparisons in this folder. They define `run VERB [OPTION ...]`: intentcast on one of their lakes, as they set it.

later() { # DAY DAYS
    date -u -d "$1 + $2 days" +%F
}

# Trains, and prints the version; without one it fails, so that no champion is taken for it.
trained() { # [OPTION ...]
    run train "$@" | sed -n 's/^model \([^ ]*\) .*/\1/p' | grep .
}

# The probability that each user buys, on some dates from DAY on, into TO.0.csv, TO.1.csv and so on.
scored_later() { # TO VERSION DAY STEP_DAYS DATES [OPTION ...]
    scores=$1 scorer=$2 first=$3 step_days=$4 dates=$5
    shift 5
    for place in $(seq 0 $((dates - 1))); do
        run sql --date "$(later "$first" $((step_days * place)))" --format csv "$@" \
            -c "SELECT user_id, score_intents(features, '$scorer')['p_purchase'] AS p FROM model_input" >"$scores.$place.csv"
    done
}

# Who bought on which days before DAY.
bought_before() { # DAY
    run sql --date "$1" --format csv \
        -c "SELECT DISTINCT user_id, CAST(ts AS DATE) AS day FROM events WHERE event_type = 'purchase'"
}
