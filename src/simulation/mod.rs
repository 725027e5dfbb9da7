//! A seeded behaviour lake with known truth.
