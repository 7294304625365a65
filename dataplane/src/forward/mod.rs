//! Forwarding methods: one file per mode over one shared `rewrite`.
#![forbid(unsafe_code)]

pub(crate) mod fullnat;
mod rewrite;
pub mod tun;

macro_rules! modes {
    ($($(#[doc = $doc:literal])+ $mode:ident,)+) => {
        /// How packets reach a real server.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        #[repr(u8)]
        pub enum ForwardMode { $($(#[doc = $doc])+ $mode,)+ }

        impl ForwardMode {
            /// All modes that this build has.
            pub const ALL: &'static [ForwardMode] = &[$(ForwardMode::$mode,)+];

            /// The mode's name in the configuration and in listings.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(ForwardMode::$mode => stringify!($mode),)+ }
            }
        }
    };
}

modes! {
    /// FULL-NAT: source becomes a local address, destination the server. Servers need no
    /// set-up, and answers come back to the worker that opened the connection.
    fullnat,
}
