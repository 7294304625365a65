//! lip
