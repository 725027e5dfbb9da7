//! Networks, bundles on disk and the registry of versions.
