//! One implementation of each figure, shared by training, evaluation and the nightly look-back.
