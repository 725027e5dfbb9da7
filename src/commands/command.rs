//! The interface of a verb, and the flags that several verbs share.

use async_trait::async_trait;
use clap::Args;

use crate::config::Config;
use crate::failure::Result;

/// Locations of lake and output.
#[derive(Debug, Args)]
pub(crate) struct Places {
    /// Read the Parquet lake at this root: s3://…, file://… or a plain path [default: lake.uri].
    #[arg(long, value_name = "URI")]
    pub(crate) lake: Option<String>,
    /// Write tables/, state/ and models/ below this root [default: output.uri].
    #[arg(long, value_name = "URI")]
    pub(crate) output: Option<String>,
}

/// One verb of the command line.
#[async_trait(?Send)]
pub(crate) trait Command {
    /// Returns the locations that the verb's flags name.
    fn places(&self) -> Option<&Places> {
        None
    }

    /// Returns true for a verb that reads a lake: `lake.toml` then adds to its settings, and a file that fails to decode is
    /// named. The other verbs must work where the lake is out of reach.
    fn reads_lake(&self) -> bool {
        false
    }

    /// Returns true for a verb that makes tensors: the GPU's library has to be open before the first one.
    fn makes_tensors(&self) -> bool {
        false
    }

    async fn run(&self, config: &Config) -> Result<()>;
}
