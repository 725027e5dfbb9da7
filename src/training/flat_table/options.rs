//! The command-line options that name a table and its columns.

/// Options of every task but `night`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TableOptions {
    /// Read these files or folders of CSV (with a header line) or Parquet, all of one format (all tasks except night).
    #[arg(long, value_name = "URI", num_args = 1..)]
    pub table: Vec<String>,
    /// Learn this column: true/false, 0/1 or yes/no (a probability), numbers (classes with --task text or image), or
    /// other texts (classes). Repeat for several (all tasks except night).
    #[arg(long, value_name = "COLUMN")]
    pub label: Vec<String>,
    /// Treat the numbers of this column as codes; it may be a label. Text columns always are. Repeat for several
    /// (--task table).
    #[arg(long, value_name = "COLUMN")]
    pub category: Vec<String>,
    /// Ignore this column, such as an id or a value known only afterwards. Repeat for several (--task table).
    #[arg(long, value_name = "COLUMN")]
    pub exclude: Vec<String>,
    /// Train on the earliest 80 % of the rows by this column and test on the last 10 % (all tasks except night)
    /// [default: split rows by a hash of their contents, equal ones together].
    #[arg(long, value_name = "COLUMN")]
    pub time_column: Option<String>,
}
