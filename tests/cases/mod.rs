//! Tests that need no trained model: they run in `make check`.

mod airflow;
mod analytics_export;
mod days;
mod documents;
mod feature_values;
mod features;
mod field;
mod importing;
mod imports;
mod killed;
mod lake_tables;
mod leakage;
mod malformed;
mod master;
mod partitions;
mod plans;
mod publishing;
mod publishing_s3;
mod random_lakes;
mod read_back;
mod references;
mod scoring;
mod simulation;
mod tidy;
