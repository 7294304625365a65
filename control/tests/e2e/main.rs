//! End to end: real clients reach real servers through the built `weir`, in namespaces.
//!
//! A test draws its [`topology`], starts its [`servers`], runs the [`weir`] binary and plays the
//! [`client`]. It knows only the contract at the edges (command line, TOML, JSON), so it also
//! judges a binary named by `WEIR_BIN`, such as the release build of `scripts/test`.
//!
//! Needs root, DPDK's net_tap, nginx and curl; without root each test says so and passes. Run them
//! with `cargo nextest run -p weir --test e2e`, which runs two at a time.
#![forbid(unsafe_code)]

mod cables;
mod carriers;
mod carry;
mod client;
mod config;
mod families;
mod guest;
mod realserver;
mod sctp;
mod servers;
mod topology;
mod weir;

mod bonds;
mod books;
mod datagrams;
mod defense;
mod explain;
mod failures;
mod forwarding;
mod ftp;
mod inside;
mod kinds;
mod leaving;
mod lifecycle;
mod limits;
mod load;
mod modes;
mod partial_checksums;
mod persistence;
mod reload;
mod schedulers;
mod snat;
mod streams;
mod syn_proxy;
mod traces;
mod transfers;
mod twins;

/// Makes a test of `fn $test(workers: usize)` for one, two and three workers: what holds for one
/// must hold for all (DESIGN.md, "Who owns a flow").
macro_rules! with_1_2_and_3_workers {
    ($test:ident) => {
        mod $test {
            #[test]
            fn one_worker() {
                super::$test(1);
            }

            #[test]
            fn two_workers() {
                super::$test(2);
            }

            #[test]
            fn three_workers() {
                super::$test(3);
            }
        }
    };
}
pub(crate) use with_1_2_and_3_workers;
