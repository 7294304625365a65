//! The configuration reader: any text is a configuration or a list of mistakes, each with its
//! place, and never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../control/src/config/mod.rs"]
mod config;
#[path = "../../control/src/prefix.rs"]
mod prefix;

fuzz_target!(|text: &str| {
    let machine = config::Machine {
        cores: (0..16).collect(),
    };
    match config::parse("weir.toml", text, &machine) {
        Ok(config) => {
            let _ = config::surprises(&config);
            assert!(config::restart_needed(&config, &config).is_none());
        }
        Err(report) => {
            let text = report.to_string();
            assert!(
                !text.is_empty() && text.lines().all(|l| l.starts_with("weir.toml:")),
                "{text}"
            );
        }
    }
});
