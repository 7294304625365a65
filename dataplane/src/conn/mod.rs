//! conn
pub mod state;
