//! Tests that need no trained model: they run in `make check`.

mod airflow;
mod documents;
mod feature_values;
mod features;
mod field;
mod importing;
mod imports;
mod killed;
mod leakage;
mod malformed;
mod master;
mod plans;
mod publishing;
mod publishing_s3;
mod random_lakes;
mod read_back;
mod references;
mod scoring;
mod simulation;
mod tidy;
