//! Point-in-time training sets, the training loop and bundle export.
