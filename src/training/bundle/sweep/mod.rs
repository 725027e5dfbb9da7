//! `train --sweep FILE`: settings searched by successive halving (Jamieson and Talwalkar 2016, arXiv:1502.07943).
//!
//! Many trials are trained for few epochs, the best of them again for more, until one is left. Its settings are then trained
//! for the configured epochs and written as a bundle. Trials are compared on the validation set only: the test set decides
//! nothing. Every finished trial is stored below `state/sweeps/<fingerprint of file, data and settings>/`, so that a search
//! that was interrupted resumes.
//!
//! In: a sweep file and the settings of a training. Out: the best settings, with which the bundle is trained.

mod search;
mod sweep_file;

pub(crate) use search::Trial;
pub(crate) use sweep_file::Sweep;
