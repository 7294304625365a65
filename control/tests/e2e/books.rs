//! What `weir` says about what it did equals what was done.
