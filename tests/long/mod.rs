//! Tests that train nothing, but take long, because they repeat one check many times or start Airflow: `make check` skips them.

mod airflow;
mod killed;
mod malformed;
mod random_lakes;
