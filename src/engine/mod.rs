//! The one builder of sessions: functions, stores, memory limits, local or Ballista; and what this machine can do.

pub mod doctor;
