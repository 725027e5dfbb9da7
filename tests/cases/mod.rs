//! Tests that need no trained model and are short: they run in `make check`.

mod analytics_export;
mod days;
mod documents;
mod feature_values;
mod features;
mod field;
mod importing;
mod imports;
mod lake_tables;
mod leakage;
mod master;
mod partitions;
mod plans;
mod prompt;
mod publishing;
mod publishing_s3;
mod read_back;
mod references;
mod rewritten_lakes;
mod scoring;
mod simulation;
mod stock_out_risk;
mod tidy;
