//! The models that a process has loaded, each once, and the parts of a session's lake that its scoring calls read.
//!
//! In: the registry below `models/` of the output, folders of encoders, and the session's views. Out: loaded models by kind and
//! version. The SQL functions load their models here; nights, trainings, shells and executors create one [`Models`] each.

mod lake_inputs;
mod loaded_models;
mod model_ref;

pub use self::lake_inputs::ContentWrites;
pub(crate) use self::lake_inputs::{LakeInputs, ModelInputs, SessionLake};
pub use self::loaded_models::Models;
pub(crate) use self::model_ref::ModelRef;
