//! Publishers' original files into a partitioned Parquet lake.
