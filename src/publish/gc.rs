//! Retention: nights past `gc.nights_kept`, files that no kept night names, lock objects of old generations.
//!
//! First plan, then act, so that `--dry-run` prints what would go. Files are removed by set difference: what lies in a
//! table's folder, less what the kept rows of `runs` name at their versions, less what the newest version holds, less
//! what is young (a night may be writing it). Delta's own vacuum knows nothing of `runs`, so it is not used.
