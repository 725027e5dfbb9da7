"""Runs a night every day, and then writes its report.

The retries are for exit code 75, a transient failure. Exit code 5 means that another run holds the night and will publish it, so the
task is skipped.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# 99 is the exit code that makes Airflow skip the task.
NIGHT = """
intentcast --config {{ var.value.get('intentcast_config', '/etc/intentcast/nightly.toml') }} --log-format json \
    nightly --date {{ data_interval_end | ds }} --deadline 7200
code=$?
[ $code -eq 5 ] && exit 99
exit $code
"""

REPORT = """
intentcast --config {{ var.value.get('intentcast_config', '/etc/intentcast/nightly.toml') }} --log-format json \
    report --date {{ data_interval_end | ds }}
"""

with DAG(
    dag_id="intentcast_nightly",
    description="Purchase intents and item demand, published whole or not at all",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["intentcast"],
) as dag:
    night = BashOperator(
        task_id="night",
        bash_command=NIGHT,
        skip_on_exit_code=99,
        retries=3,
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=3),
    )
    report = BashOperator(
        task_id="report",
        bash_command=REPORT,
        retries=3,
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=1),
    )
    night >> report
