"""Judges last week's model, trains a new one every week, and removes data past its retention.

`promote newest` compares last week's model with the champion by the week that neither has learnt from. Where it is not better, or
cannot be judged yet (exit 4), the champion stays. `train` runs whatever the result, and writes a new bundle, which becomes the
champion only if there is none yet, so a bad week changes no night.
"""

from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

CONFIG = "{{ var.value.get('intentcast_config', '/etc/intentcast/nightly.toml') }}"

with DAG(
    dag_id="intentcast_training",
    description="A better model becomes champion; a new one learns from last week's behaviour",
    schedule="0 5 * * 0",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    tags=["intentcast"],
) as dag:
    judge = BashOperator(
        task_id="promote",
        bash_command=f"intentcast --config {CONFIG} --log-format json promote newest || [ $? -eq 4 ]",
        retries=1,
        retry_delay=timedelta(minutes=30),
        execution_timeout=timedelta(hours=2),
    )
    train = BashOperator(
        task_id="train",
        bash_command=f"intentcast --config {CONFIG} --log-format json train --date {{{{ data_interval_end | ds }}}}",
        trigger_rule="all_done",
        retries=1,
        retry_delay=timedelta(minutes=30),
        execution_timeout=timedelta(hours=8),
    )
    clean_up = BashOperator(task_id="gc", bash_command=f"intentcast --config {CONFIG} gc")
    judge >> train >> clean_up
