//! The classes of failure that a caller of the command line can tell apart, and their exit codes.
//!
//! Every room's error converts into [`Failure`]; `main` alone turns it into a process exit. The numbers are a contract
//! with schedulers (Airflow retries 75, wakes nobody for 5), so they never change meaning.

use arrow::error::ArrowError;
use std::fmt;

/// What went wrong, from the point of view of who has to act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Wrong flags or settings: the person who wrote them acts. Exit 2.
    Usage,
    /// An input file or value was refused: the owner of the lake acts. Exit 3.
    Input,
    /// A check on the results failed and nothing was published. Exit 4.
    Check,
    /// Another run holds this night or has fenced this one out. Exit 5.
    Fenced,
    /// The model is missing, damaged or does not fit the features. Exit 6.
    Model,
    /// An invariant of ours is broken. Exit 70.
    Bug,
    /// A store, cluster or deadline fault that outlasted the retries: run again. Exit 75.
    Passing,
}

impl FailureKind {
    pub fn exit_code(self) -> u8 {
        match self {
            FailureKind::Usage => 2,
            FailureKind::Input => 3,
            FailureKind::Check => 4,
            FailureKind::Fenced => 5,
            FailureKind::Model => 6,
            FailureKind::Bug => 70,
            FailureKind::Passing => 75,
        }
    }
}

/// A failure on its way to the person who can mend it: kind, sentence, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    pub hint: Option<String>,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Usage, message)
    }
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Input, message)
    }
    pub fn check(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Check, message)
    }
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Fenced, message)
    }
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Model, message)
    }
    pub fn bug(message: impl fmt::Display) -> Self {
        Self::new(FailureKind::Bug, format!("{message} (this is a bug in intentcast)"))
    }
    pub fn passing(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Passing, message)
    }
    /// Adds what to do about it; shown on a line of its own after `hint:`.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Puts `context: ` in front of the message, to say where.
    pub fn at(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// An engine error keeps the kind of a [`Failure`] that travelled inside it (an operator of ours may raise one), and a
/// store's refusal stays one however many readers it passed through.
impl From<datafusion::error::DataFusionError> for Failure {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as E;
        if let Some(failure) = refusal(&error) {
            return failure;
        }
        let kind = match error.find_root() {
            E::External(inner) => match inner.downcast_ref::<Failure>() {
                Some(f) => {
                    return Failure { kind: f.kind, message: f.message.clone(), hint: f.hint.clone() };
                }
                None => FailureKind::Bug,
            },
            E::SQL(..) | E::Plan(_) | E::SchemaError(..) => FailureKind::Usage,
            E::ObjectStore(_) | E::IoError(_) => FailureKind::Passing,
            E::ResourcesExhausted(_) => FailureKind::Usage,
            E::ParquetError(inner) => of_reading(inner.as_ref()),
            E::ArrowError(inner, _) if matches!(**inner, ArrowError::ParquetError(_)) => of_reading(inner.as_ref()),
            _ => FailureKind::Bug,
        };
        let failure = Failure::new(kind, error.strip_backtrace());
        match error.find_root() {
            E::ResourcesExhausted(_) => failure.hint(
                "raise engine.memory_bytes_max; or have nights and trainings take more parts (engine.user_parts, \
                 engine.item_parts), queries fewer rows",
            ),
            _ => failure,
        }
    }
}

/// How a refusal reads in the store's errors. Readers in between (Parquet's footers, Delta's log) keep only the text.
const REFUSALS: [&str; 4] = [
    "The operation lacked the necessary privileges",
    "The operation lacked valid authentication credentials",
    "non-2xx status code: 403",
    "non-2xx status code: 401",
];

/// The failure of a request that the store refused for want of rights; `None` where that is not what happened.
pub fn refusal(error: &dyn std::error::Error) -> Option<Failure> {
    let text = error.to_string();
    REFUSALS.iter().any(|refusal| text.contains(refusal)).then(|| {
        Failure::usage(format!("store refused access: {text}"))
            .hint("check the credentials and the bucket policy: reading, listing, writing and deleting are needed")
    })
}

/// Whose fault it is that a Parquet reader failed: the store's, or the file's.
fn of_reading(error: &dyn std::error::Error) -> FailureKind {
    if store_failed(error) { FailureKind::Passing } else { FailureKind::Input }
}

/// Whether a Parquet reader failed because of the store that it reads from, which says nothing about the file.
fn store_failed(error: &dyn std::error::Error) -> bool {
    let typed = error.source().is_some_and(|e| e.is::<object_store::Error>());
    typed || error.to_string().contains("Object Store error")
}

impl From<Failure> for datafusion::error::DataFusionError {
    fn from(failure: Failure) -> Self {
        datafusion::error::DataFusionError::External(Box::new(failure))
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        match &error {
            object_store::Error::NotFound { path, .. } => Failure::input(format!("{path}: not found")),
            _ => refusal(&error).unwrap_or_else(|| Failure::passing(format!("store: {error}"))),
        }
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Failure::from(datafusion::error::DataFusionError::from(error))
    }
}

impl From<parquet::errors::ParquetError> for Failure {
    fn from(error: parquet::errors::ParquetError) -> Self {
        match store_failed(&error) {
            true => refusal(&error).unwrap_or_else(|| Failure::passing(format!("parquet: {error}"))),
            false => Failure::input(format!("parquet: {error}")),
        }
    }
}

impl From<tch::TchError> for Failure {
    /// libtorch errors carry a C++ stack; people need the first line.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        Failure::bug(format!("libtorch: {}", text.lines().next().unwrap_or("unknown")))
    }
}
