"""Trains intentcast's models every week, and removes data past its retention.

`train` writes a new bundle. It becomes the champion only if there is none yet, so a bad week changes no night.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

CONFIG = "{{ var.value.get('intentcast_config', '/etc/intentcast/nightly.toml') }}"

with DAG(
    dag_id="intentcast_training",
    description="A new model from last week's behaviour, for promotion by hand",
    schedule="0 5 * * 0",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["intentcast"],
) as dag:
    train = BashOperator(
        task_id="train",
        bash_command=f"intentcast --config {CONFIG} --log-format json train --date {{{{ data_interval_end | ds }}}}",
        retries=1,
        retry_delay=timedelta(minutes=30),
        execution_timeout=timedelta(hours=8),
    )
    clean_up = BashOperator(task_id="gc", bash_command=f"intentcast --config {CONFIG} gc")
    train >> clean_up
