//! The classes of failure that a caller of the command line can distinguish, and their exit codes.
//!
//! Every module's error converts into [`Failure`], which keeps that error as its `source()`: people read the message and the
//! hint, logs show the chain. Code decides by [`FailureKind`] and [`Cause`], never by a message of ours; texts of libraries are
//! matched here alone, where a library has no variant for the case. `main` alone turns a failure into a process exit. The exit
//! codes are a contract with schedulers (Airflow retries 75, pages no one for 5), so they never change meaning.

use arrow::error::ArrowError;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::task::JoinError;

/// Class of a failure by who has to act on it.
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
    /// A fault of a store, a cluster or a deadline that outlasted the retries: run again. Exit 75.
    Transient,
}

/// A cause that code acts on, where the kind alone does not say enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The bytes of a file are not what its format promises. `searched`: the message names the file, or the search for it has
    /// ended without a result.
    Undecodable { searched: bool },
    /// The store refused the request: wrong credentials, missing rights or no such bucket.
    StoreRefused,
    /// A conditional write found that another writer was first.
    Conflict,
    /// A device or the host had no memory left for a forward pass.
    OutOfMemory,
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
            FailureKind::Transient => 75,
        }
    }
}

/// A failure as people see it: what went wrong, and what to do about it.
#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: FailureKind,
    pub(crate) cause: Option<Cause>,
    pub message: String,
    pub hint: Option<String>,
    /// The error that this failure reports; shared, because an engine may hand one error to several partitions.
    pub(crate) source: Option<Arc<dyn Error + Send + Sync>>,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, cause: None, message: message.into(), hint: None, source: None }
    }
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Usage, message)
    }
    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Input, message)
    }
    pub(crate) fn check(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Check, message)
    }
    pub(crate) fn fenced(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Fenced, message)
    }
    pub(crate) fn model(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Model, message)
    }
    pub(crate) fn bug(message: impl fmt::Display) -> Self {
        Self::new(FailureKind::Bug, format!("{message} (this is a bug in intentcast)"))
    }
    pub(crate) fn transient(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Transient, message)
    }
    /// Logs the errors behind this one at debug level (`RUST_LOG=intentcast=debug`).
    pub fn log_causes(&self) {
        for cause in chain(self).skip(1) {
            tracing::debug!("caused by: {cause}");
        }
    }
    /// Returns whether the failure reports a file whose bytes are not what its format promises.
    pub(crate) fn is_undecodable(&self) -> bool {
        matches!(self.cause, Some(Cause::Undecodable { .. }))
    }
    /// Keeps the error that this failure reports.
    pub(crate) fn caused_by(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
    /// Adds what to do about it; shown on its own line after `hint:`.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
    /// Puts `context: ` in front of the message to say where.
    pub(crate) fn at(mut self, context: impl fmt::Display) -> Self {
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

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Returns the errors of a chain from the outermost to the root. An `io::Error` hides the error that it wraps from `source()`.
pub(crate) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// An engine error keeps a [`Failure`] that travelled inside it (an operator of ours may raise one), and a refusal of the
/// store stays one however many readers it passed through.
impl From<datafusion::error::DataFusionError> for Failure {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as E;
        if let Some(failure) = chain(&error).find_map(|e| e.downcast_ref::<Failure>()) {
            return failure.clone();
        }
        if let Some(failure) = store_refusal(&error) {
            return failure.caused_by(error);
        }
        let (kind, cause) = classify(&error);
        if chain(&error).filter_map(|e| e.downcast_ref::<ArrowError>()).any(shows_value) {
            // Neither the message nor a logged cause shows the value: it may be a person's.
            let failure = Failure { cause, ..Failure::new(kind, without_values(&error.strip_backtrace())) };
            return failure.hint("the value is not shown, because logs keep no data; TRY_CAST makes such values null");
        }
        let failure = Failure { cause, ..Failure::new(kind, error.strip_backtrace()) };
        let failure = match error.find_root() {
            E::ResourcesExhausted(_) => failure.hint(
                "raise engine.memory_bytes_max; or have nights and trainings take more parts (engine.user_parts, \
                 engine.item_parts), queries fewer rows",
            ),
            _ => failure,
        };
        failure.caused_by(error)
    }
}

fn classify(error: &datafusion::error::DataFusionError) -> (FailureKind, Option<Cause>) {
    use datafusion::error::DataFusionError as E;
    if task_panicked(error) {
        // A damaged file may make a decoder panic: the lake's files are searched before it counts as a bug.
        return (FailureKind::Bug, Some(Cause::Undecodable { searched: false }));
    }
    let reader: &(dyn Error + 'static) = match error.find_root() {
        E::SQL(..) | E::Plan(_) | E::SchemaError(..) | E::ResourcesExhausted(_) => return (FailureKind::Usage, None),
        E::ObjectStore(_) | E::IoError(_) => return (FailureKind::Transient, None),
        E::ParquetError(reader) => reader.as_ref(),
        E::ArrowError(reader, _) if matches!(**reader, ArrowError::ParquetError(_)) => reader.as_ref(),
        // A value that a conversion or a sum cannot represent. The file that has it is searched for.
        E::ArrowError(value, _) if is_value_error(value) => {
            return (FailureKind::Input, Some(Cause::Undecodable { searched: false }));
        }
        _ => return (FailureKind::Bug, None),
    };
    match store_failed(reader) {
        true => (FailureKind::Transient, None),
        false => (FailureKind::Input, Some(Cause::Undecodable { searched: false })),
    }
}

/// Returns whether a message of the planner says that a table is unknown, for which it has no error of its own.
pub(crate) fn names_unknown_table(message: &str) -> bool {
    message.starts_with("table '") && message.ends_with("not found")
}

/// Returns whether a task that the engine spawned panicked; its repartitioning shares the error.
fn task_panicked(error: &(dyn Error + 'static)) -> bool {
    let is_panic = |e: &(dyn Error + 'static)| match e.downcast_ref::<Arc<JoinError>>() {
        Some(shared) => shared.is_panic(),
        None => e.downcast_ref::<JoinError>().is_some_and(JoinError::is_panic),
    };
    chain(error).any(is_panic)
}

/// Replaces what a message has in quotes: arrow quotes the values that it cannot convert, and they may have quotes themselves.
fn without_values(message: &str) -> String {
    match (message.find('\''), message.rfind('\'')) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &message[..=first], &message[last..]),
        _ => message.into(),
    }
}

fn shows_value(error: &ArrowError) -> bool {
    matches!(error, ArrowError::CastError(_) | ArrowError::ParseError(_))
}

fn is_value_error(error: &ArrowError) -> bool {
    use ArrowError as E;
    matches!(error, E::CastError(_) | E::ParseError(_) | E::ArithmeticOverflow(_) | E::DivideByZero)
        // Decimals that do not fit their precision.
        || matches!(error, E::InvalidArgumentError(text) if text.contains("is too large to store in a Decimal")
            || text.contains("is too small to store in a Decimal"))
}

/// Returns the failure of a request that the store refused because permissions or the bucket are missing; `None` if it failed
/// for another reason.
pub(crate) fn store_refusal(error: &(dyn Error + 'static)) -> Option<Failure> {
    if let Some(failure) = missing_bucket(error) {
        return Some(failure);
    }
    let typed = chain(error).filter_map(|e| e.downcast_ref::<object_store::Error>()).any(|e| {
        matches!(e, object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. })
    });
    let refused = typed || chain(error).last().is_some_and(|root| reads_as_refusal(&root.to_string()));
    refused.then(|| Failure {
        cause: Some(Cause::StoreRefused),
        ..Failure::usage(format!("store refused access: {error}"))
            .hint("check the credentials and the bucket policy: reading, listing, writing and deleting are needed")
    })
}

/// Returns the failure of a request to a bucket that does not exist. object_store keeps the store's answer as text.
fn missing_bucket(error: &(dyn Error + 'static)) -> Option<Failure> {
    let answer = chain(error).map(|e| e.to_string()).find(|text| text.contains("NoSuchBucket"))?;
    let name = answer.split("<BucketName>").nth(1).and_then(|rest| rest.split('<').next());
    let name = name.map_or(String::new(), |name| format!(" {name}"));
    Some(Failure {
        cause: Some(Cause::StoreRefused),
        ..Failure::usage(format!("the bucket{name} does not exist"))
            .hint("correct the address, or s3.endpoint and s3.region; or create the bucket")
    })
}

/// Returns whether the root of an error chain reads as a refusal. object_store reports a refused listing as `Generic` around an HTTP
/// error that it does not export, and Parquet's footer reader and its conversion to Arrow keep only the text of an error.
fn reads_as_refusal(text: &str) -> bool {
    const REFUSALS: [&str; 4] = [
        "The operation lacked the necessary privileges",
        "The operation lacked valid authentication credentials",
        "non-2xx status code: 403",
        "non-2xx status code: 401",
    ];
    REFUSALS.iter().any(|refusal| text.contains(refusal))
}

/// Returns whether a Parquet reader failed because of the store that it reads from, which says nothing about the file.
fn store_failed(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|e| e.is::<object_store::Error>())
        || chain(error).last().is_some_and(|root| reads_as_store_fault(&root.to_string()))
}

/// Returns whether the root of an error chain reads as a fault of the store: the engine's footer reader keeps only its text.
fn reads_as_store_fault(text: &str) -> bool {
    text.contains("Object Store error")
}

impl From<Failure> for datafusion::error::DataFusionError {
    fn from(failure: Failure) -> Self {
        datafusion::error::DataFusionError::External(Box::new(failure))
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let failure = match (store_refusal(&error), &error) {
            (Some(refusal), _) => refusal,
            (None, E::NotFound { path, .. }) => Failure::input(format!("{path}: not found")),
            (None, E::AlreadyExists { .. } | E::Precondition { .. }) => {
                Failure { cause: Some(Cause::Conflict), ..Failure::transient(format!("store: {error}")) }
            }
            (None, _) => Failure::transient(format!("store: {error}")),
        };
        failure.caused_by(error)
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Self {
        Failure::from(datafusion::error::DataFusionError::from(error))
    }
}

impl From<parquet::errors::ParquetError> for Failure {
    fn from(error: parquet::errors::ParquetError) -> Self {
        let message = format!("parquet: {error}");
        let failure = match store_failed(&error) {
            true => store_refusal(&error).unwrap_or_else(|| Failure::transient(message)),
            false => Failure { cause: Some(Cause::Undecodable { searched: false }), ..Failure::input(message) },
        };
        failure.caused_by(error)
    }
}

impl From<tch::TchError> for Failure {
    /// libtorch errors carry a C++ stack; people need the first line.
    fn from(error: tch::TchError) -> Self {
        let text = error.to_string();
        let failure = Failure::bug(format!("libtorch: {}", text.lines().next().unwrap_or("unknown")));
        let cause = reads_as_out_of_memory(&text).then_some(Cause::OutOfMemory);
        Failure { cause, ..failure }.caused_by(error)
    }
}

/// Returns whether an error or a panic of libtorch reads as a failed allocation, on a GPU or on a CPU; the bindings keep only its text.
pub(crate) fn reads_as_out_of_memory(text: &str) -> bool {
    ["out of memory", "can't allocate memory"].iter().any(|phrase| text.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::error::DataFusionError;
    use object_store::Error as StoreError;
    use parquet::errors::ParquetError;

    fn denied() -> StoreError {
        StoreError::PermissionDenied { path: "lake/events".into(), source: "403".into() }
    }

    #[test]
    fn values_are_not_in_messages() {
        let error =
            DataFusionError::from(ArrowError::CastError("Cannot cast string 'o'ada' to value of Int64 type".into()));
        let failure = Failure::from(error.context("while reading"));
        assert!(failure.message.contains("Cannot cast string '…' to value of Int64 type"), "{failure}");
        assert!(chain(&failure).all(|cause| !cause.to_string().contains("ada")));
    }

    #[test]
    fn a_failure_keeps_the_error_it_reports() {
        let failure = Failure::from(DataFusionError::from(denied())).at("table events");
        assert_eq!((failure.kind, failure.cause), (FailureKind::Usage, Some(Cause::StoreRefused)));
        assert!(failure.message.starts_with("table events: store refused access"), "{failure}");
        assert!(chain(&failure).any(|e| matches!(e.downcast_ref(), Some(StoreError::PermissionDenied { .. }))));
        let carried = Failure::from(DataFusionError::from(failure.clone()).context("while scanning"));
        assert_eq!((carried.message, carried.hint, carried.cause), (failure.message, failure.hint, failure.cause));
    }

    #[test]
    fn a_refusal_is_found_behind_readers_and_writers() {
        let written = ParquetError::External(Box::new(io::Error::other(denied())));
        assert_eq!(Failure::from(written).cause, Some(Cause::StoreRefused));
        // A refused listing: the store's HTTP error is private.
        let listing = StoreError::Generic {
            store: "S3",
            source: "Error performing list request: Server returned non-2xx status code: 403 Forbidden: ".into(),
        };
        assert_eq!(Failure::from(listing).cause, Some(Cause::StoreRefused));
        let text = ArrowError::from(ParquetError::External(Box::new(denied())));
        assert_eq!(Failure::from(text).cause, Some(Cause::StoreRefused));
        assert!(!reads_as_refusal("Server returned non-2xx status code: 503 Slow Down"));
    }

    #[test]
    fn a_damaged_file_is_an_input_failure_and_a_store_fault_is_not() {
        let damaged = || ParquetError::EOF("expected 8 bytes".into());
        for failure in [
            Failure::from(damaged()),
            Failure::from(DataFusionError::from(damaged())),
            Failure::from(ArrowError::from(damaged())),
        ] {
            let undecodable = Some(Cause::Undecodable { searched: false });
            assert_eq!((failure.kind, failure.cause), (FailureKind::Input, undecodable), "{failure}");
        }
        let slow = || StoreError::Generic { store: "S3", source: "503 Slow Down".into() };
        let footer = format!("Failed to fetch metadata for file a: {}", DataFusionError::from(slow()));
        for failure in [
            Failure::from(ParquetError::from(slow())),
            Failure::from(DataFusionError::from(ParquetError::from(slow()))),
            Failure::from(DataFusionError::from(ParquetError::General(footer))),
        ] {
            assert_eq!((failure.kind, failure.cause), (FailureKind::Transient, None), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_task_is_searched_for_in_files() {
        let panicked = tokio::spawn(async { panic!("index out of bounds") }).await.unwrap_err();
        let shared = DataFusionError::External(Box::new(Arc::new(panicked))).context("Join Error");
        let failure = Failure::from(shared);
        let undecodable = Some(Cause::Undecodable { searched: false });
        assert_eq!((failure.kind, failure.cause), (FailureKind::Bug, undecodable), "{failure}");
    }

    #[test]
    fn a_failed_conditional_write_is_a_conflict() {
        let lost = StoreError::AlreadyExists { path: "lock/1".into(), source: "412".into() };
        assert_eq!(Failure::from(lost).cause, Some(Cause::Conflict));
    }

    #[test]
    fn a_failed_allocation_of_libtorch_is_out_of_memory() {
        let full = tch::TchError::Torch("CUDA out of memory. Tried to allocate 20.00 MiB\nframe #0".into());
        let failure = Failure::from(full);
        assert_eq!(failure.cause, Some(Cause::OutOfMemory));
        assert!(!failure.message.contains("frame") && chain(&failure).count() == 2, "{failure}");
        assert_eq!(Failure::from(tch::TchError::Torch("shapes differ".into())).cause, None);
    }
}
