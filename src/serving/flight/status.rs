//! Failures as gRPC's status.

use tonic::Status;

use crate::serving::refusal::Refusal;

pub(super) fn refused(refusal: impl Into<Refusal>) -> Status {
    refusal.into().grpc_status()
}

pub(super) fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

pub(super) fn unsupported(what: &str) -> Status {
    Status::unimplemented(format!("{what}: this server only reads"))
}
