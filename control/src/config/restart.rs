//! What a reload cannot change: memory, queues, threads and ports are taken at start.
#![forbid(unsafe_code)]

use std::fmt::Debug;

use super::types::{Config, Cores, Device, Port, Vlan};
use super::words::grouped;

/// Why going from `old` to `new` needs a restart: every key that does, with both values; or
/// `None` when a reload does it.
#[must_use]
pub(crate) fn restart_needed(old: &Config, new: &Config) -> Option<String> {
    let mut keys = Differences(Vec::new());
    keys.note(
        "[workers] cores",
        &old.workers.cores,
        &new.workers.cores,
        show_cores,
    );
    let (was, is) = (&old.workers, &new.workers);
    let mib = |bytes: &u64| format!("\"{}\"", super::scalars::show_size(*bytes));
    keys.note("[workers] memory", &was.memory, &is.memory, mib);
    keys.note(
        "[workers] max_connections",
        &was.max_connections,
        &is.max_connections,
        |n| grouped(*n),
    );
    keys.note(
        "[workers] max_connections6",
        &was.max_connections6,
        &is.max_connections6,
        |n| grouped(*n),
    );
    keys.note("[workers] hugepages", &was.hugepages, &is.hugepages, debug);
    keys.note("[workers] idle", &was.idle, &is.idle, debug);
    let names = |ports: &Vec<Port>| ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    let (before, after) = (names(&old.ports), names(&new.ports));
    keys.note("[[port]] name", &before, &after, |names| names.join(", "));
    if before == after {
        for (was, is) in old.ports.iter().zip(&new.ports) {
            let key = |key| format!("port {:?} {key}", was.name);
            keys.note(&key("device"), &was.device, &is.device, |d| match d {
                Device::Bond(bond) => format!("bond = {{ {bond} }}"),
                device => format!("\"{device}\""),
            });
            let vlan = |vlan: &Option<Vlan>| match vlan {
                Some(vlan) => vlan.id.to_string(),
                None => "none".to_owned(),
            };
            keys.note(&key("vlan"), &was.vlan, &is.vlan, vlan);
            keys.note(&key("addresses"), &was.addresses, &is.addresses, |list| {
                let list: Vec<String> = list.iter().map(|a| format!("\"{a}\"")).collect();
                format!("[{}]", list.join(", "))
            });
            keys.note(&key("mtu"), &was.mtu, &is.mtu, debug);
            keys.note(
                &key("rx_checksum"),
                &was.rx_checksum,
                &is.rx_checksum,
                debug,
            );
        }
    }
    keys.note("[log] level", &old.log.level, &new.log.level, |level| {
        level.as_str().to_lowercase()
    });
    keys.note("[log] format", &old.log.format, &new.log.format, debug);
    if keys.0.is_empty() {
        return None;
    }
    let keys = keys.0.join("; ");
    Some(format!(
        "a reload cannot change {keys}; restart Weir to use this file, or put the running values \
         back"
    ))
}

#[derive(Debug)]
struct Differences(Vec<String>);

impl Differences {
    fn note<T: PartialEq>(&mut self, key: &str, old: &T, new: &T, show: impl Fn(&T) -> String) {
        if old != new {
            self.0.push(format!(
                "{key} ({} running, {} in the file)",
                show(old),
                show(new)
            ));
        }
    }
}

/// As the configuration writes words and numbers: Rust's names, in lower case.
fn debug<T: Debug>(value: &T) -> String {
    format!("{value:?}").to_lowercase()
}

fn show_cores(cores: &Cores) -> String {
    match cores {
        Cores::Pinned(cores) => format!("{cores:?}"),
        Cores::Count(count) => format!("count = {count}"),
    }
}
