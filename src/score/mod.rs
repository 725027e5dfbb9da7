//! The scoring service and the operator that calls it from SQL.

pub mod catalogue;
pub mod content_store;
pub mod devices;
pub mod distinct;
pub mod embedding;
pub mod functions;
pub mod images;
pub mod kept;
pub mod labels;
pub mod models;
pub mod modules;
pub mod operator;
pub mod pictures;
pub mod recommend;
pub mod service;
pub mod table;
pub mod text;
pub mod torch_functions;
