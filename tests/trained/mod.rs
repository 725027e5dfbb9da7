//! Tests that train a model, or use the one that was trained for all of them.

mod check_and_why;
mod cluster;
mod cold_start;
mod command_line;
mod contents;
mod demand;
mod drift_and_accuracy;
mod erase;
mod evaluation;
mod functions;
mod image;
mod live;
mod networks;
mod nightly;
mod persons;
mod promotion;
mod quickstart;
mod replenishment;
mod report;
mod serve;
mod suppressed;
mod tables;
mod text;
mod trackers;
mod training;
mod truth;
