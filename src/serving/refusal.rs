//! Reasons why a request is not answered, with the code that each protocol has for it.

use arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};

use crate::failure::{self, Failure, FailureKind};

/// A failure with its SQLSTATE, from which the codes of HTTP and gRPC follow.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// Five characters, as PostgreSQL defines them (docs/current/errcodes-appendix.html).
    pub(crate) sqlstate: &'static str,
    pub(crate) failure: Failure,
}

pub(crate) type Result<T, E = Refusal> = std::result::Result<T, E>;

impl Refusal {
    pub(crate) const SYNTAX: &str = "42601";
    pub(crate) const UNKNOWN_TABLE: &str = "42P01";
    pub(crate) const UNKNOWN_COLUMN: &str = "42703";
    pub(crate) const INVALID: &str = "42000";
    pub(crate) const INVALID_VALUE: &str = "22023";
    pub(crate) const READ_ONLY: &str = "25006";
    pub(crate) const NOT_ALLOWED: &str = "42501";
    pub(crate) const WRONG_CREDENTIALS: &str = "28P01";
    pub(crate) const FAILED_TRANSACTION: &str = "25P02";
    pub(crate) const UNSUPPORTED: &str = "0A000";
    pub(crate) const CANCELLED: &str = "57014";
    pub(crate) const OUT_OF_MEMORY: &str = "53200";
    pub(crate) const BUSY: &str = "53300";
    pub(crate) const TOO_COMPLEX: &str = "54001";
    pub(crate) const TOO_LARGE: &str = "54000";
    pub(crate) const UNAVAILABLE: &str = "58030";
    pub(crate) const NOT_READY: &str = "55000";
    pub(crate) const BUG: &str = "XX000";

    pub(crate) fn new(sqlstate: &'static str, message: impl Into<String>) -> Self {
        Self { sqlstate, failure: Failure::usage(message) }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.failure = self.failure.hint(hint);
        self
    }

    /// Status of HTTP.
    pub(crate) fn http_status(&self) -> u16 {
        match self.sqlstate {
            Self::WRONG_CREDENTIALS => 401,
            Self::NOT_ALLOWED | Self::READ_ONLY => 403,
            Self::BUSY | Self::UNAVAILABLE | Self::OUT_OF_MEMORY | Self::NOT_READY => 503,
            Self::CANCELLED => 504,
            Self::BUG => 500,
            _ => 400,
        }
    }

    /// Status of gRPC.
    pub(crate) fn grpc_status(&self) -> tonic::Status {
        let code = match self.sqlstate {
            Self::WRONG_CREDENTIALS => tonic::Code::Unauthenticated,
            Self::NOT_ALLOWED | Self::READ_ONLY => tonic::Code::PermissionDenied,
            Self::UNKNOWN_TABLE => tonic::Code::NotFound,
            Self::UNSUPPORTED => tonic::Code::Unimplemented,
            Self::CANCELLED => tonic::Code::Cancelled,
            Self::BUSY | Self::OUT_OF_MEMORY | Self::TOO_LARGE => tonic::Code::ResourceExhausted,
            Self::UNAVAILABLE => tonic::Code::Unavailable,
            Self::BUG => tonic::Code::Internal,
            _ => tonic::Code::InvalidArgument,
        };
        tonic::Status::new(code, self.failure.to_string())
    }
}

/// Returns the SQLSTATE of a value that a computation cannot take.
fn value_state(error: &ArrowError) -> Option<&'static str> {
    match error {
        ArrowError::DivideByZero => Some("22012"),
        ArrowError::ArithmeticOverflow(_) => Some("22003"),
        ArrowError::CastError(_) | ArrowError::ParseError(_) => Some("22P02"),
        _ => None,
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let sqlstate = match failure.kind {
            FailureKind::Usage => Self::INVALID,
            FailureKind::Transient => Self::UNAVAILABLE,
            FailureKind::Bug => Self::BUG,
            FailureKind::Input | FailureKind::Check | FailureKind::Fenced | FailureKind::Model => Self::NOT_READY,
        };
        Self { sqlstate, failure }
    }
}

impl From<DataFusionError> for Refusal {
    fn from(error: DataFusionError) -> Self {
        let sqlstate = match error.find_root() {
            DataFusionError::SQL(..) => Some(Self::SYNTAX),
            DataFusionError::SchemaError(e, _) if matches!(**e, SchemaError::FieldNotFound { .. }) => {
                Some(Self::UNKNOWN_COLUMN)
            }
            DataFusionError::ResourcesExhausted(_) => Some(Self::OUT_OF_MEMORY),
            DataFusionError::NotImplemented(_) => Some(Self::UNSUPPORTED),
            DataFusionError::ArrowError(error, _) => value_state(error),
            DataFusionError::Plan(message) if failure::names_unknown_table(message) => Some(Self::UNKNOWN_TABLE),
            _ => None,
        };
        let syntax = match error.find_root() {
            DataFusionError::SQL(parser, _) => Some(parser.to_string()),
            _ => None,
        };
        let mut refusal = Self::from(Failure::from(error));
        if let Some(message) = syntax {
            refusal.failure.message = message;
        }
        match sqlstate {
            Some(sqlstate) => Self { sqlstate, ..refusal },
            None => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn each_protocol_has_its_code_for_a_reason() {
        for (sqlstate, http, grpc) in [
            (Refusal::BUSY, 503, Code::ResourceExhausted),
            (Refusal::OUT_OF_MEMORY, 503, Code::ResourceExhausted),
            (Refusal::TOO_LARGE, 400, Code::ResourceExhausted),
            (Refusal::CANCELLED, 504, Code::Cancelled),
            (Refusal::UNAVAILABLE, 503, Code::Unavailable),
            (Refusal::WRONG_CREDENTIALS, 401, Code::Unauthenticated),
            (Refusal::NOT_ALLOWED, 403, Code::PermissionDenied),
            (Refusal::READ_ONLY, 403, Code::PermissionDenied),
            (Refusal::UNKNOWN_TABLE, 400, Code::NotFound),
            (Refusal::BUG, 500, Code::Internal),
        ] {
            let refusal = Refusal::new(sqlstate, "why");
            assert_eq!((refusal.http_status(), refusal.grpc_status().code()), (http, grpc), "{sqlstate}");
            assert_eq!(refusal.grpc_status().message(), "why");
        }
    }
}
