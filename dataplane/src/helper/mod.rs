//! Protocols that name addresses and ports in their own data, so that one connection announces
//! another one: FTP.
//!
//! A *helper* reads a service's control connections (`pipeline/helped.rs`). What is announced there
//! becomes *expected* ([`expected`]), and the data connection that then comes opens to the same
//! server without a service of its own (`pipeline/expected.rs`). Where an announcement has to name
//! other addresses, its line changes length, and TCP's numbers with it (`shift.rs`).
#![forbid(unsafe_code)]

pub mod expected;
pub mod ftp;
pub(crate) mod shift;

/// What reads a service's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[allow(non_camel_case_types)]
#[repr(u8)]
pub enum Helper {
    /// Nothing.
    #[default]
    none,
    /// The file transfer protocol (RFC 959, RFC 2428).
    ftp,
}

impl Helper {
    /// All of them.
    pub const ALL: &'static [Helper] = &[Helper::none, Helper::ftp];

    /// The name in the configuration and in listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Helper::none => "none",
            Helper::ftp => "ftp",
        }
    }
}
