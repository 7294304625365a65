//! `weir blacklist`: who is shut out, for how long.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use weir_dataplane::defense::access::Prefix;

use super::Output;
use super::number::grouped;
use super::table::{Align, Table};
use crate::api::client;
use crate::api::documents::{BlacklistEntry, Blacklisted};

/// Shuts clients out, for a while or until they are let in again
///
/// A client on the blacklist opens no connection; its packets are dropped without an answer
/// (counter drop.blacklisted), and connections that it has are forgotten (counter conns_denied).
/// Holds when the command returns: every worker has it. Entries go by themselves when their time
/// is up. They outlast `weir reload`, and not a restart of the daemon: what is to stay belongs
/// into the configuration ([service.access] deny). At most 100,000 entries.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Shut a network out; one that is on the list gets another end
    Add {
        /// The network, or an address: 192.0.2.0/24, 2001:db8::/32, 192.0.2.7
        prefix: Prefix,
        /// For so long: 90s, 10m, 2h, 7d. Without, until it is removed
        #[arg(long = "for", value_name = "TIME", value_parser = crate::config::duration)]
        lasts: Option<Duration>,
        /// Of this service only (its name). Without, of all
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
    /// Let a network in again
    Remove {
        /// The network as it was added
        prefix: Prefix,
        /// The service that it was added with
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
    /// Show who is shut out, and for how long still
    List {
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(options: &Options, socket: &Path) -> anyhow::Result<String> {
    Ok(match &options.what {
        What::Add {
            prefix,
            lasts,
            service,
        } => {
            let target = target(*prefix, service.as_deref(), *lasts);
            let done = client::post::<Blacklisted>(socket, &target)?;
            told(&done, "is shut out")
        }
        What::Remove { prefix, service } => {
            let target = target(*prefix, service.as_deref(), None);
            let done = client::delete::<Blacklisted>(socket, &target)?;
            told(&done, "is let in again")
        }
        What::List { output } => {
            let list = client::get::<Blacklisted>(socket, "/v1/blacklist")?;
            output.text(&list, human)?
        }
    })
}

fn target(prefix: Prefix, service: Option<&str>, lasts: Option<Duration>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("prefix", &prefix.to_string());
    if let Some(service) = service {
        query.append_pair("service", service);
    }
    if let Some(lasts) = lasts {
        let ms = lasts.as_millis();
        query.append_pair("milliseconds", &ms.to_string());
    }
    format!("/v1/blacklist?{}", query.finish())
}

fn told(done: &Blacklisted, what: &str) -> String {
    let mut text = String::new();
    for entry in &done.entries {
        let _ = write!(text, "{} {what}", entry.prefix);
        if let Some(service) = &entry.service {
            let _ = write!(text, " of service {service:?}");
        }
        if let (Some(seconds), true) = (entry.expires_in_seconds, what.ends_with("out")) {
            let _ = write!(text, " for {}", time(seconds));
        }
        text.push('\n');
    }
    text
}

pub(super) fn human(list: &Blacklisted) -> String {
    if list.entries.is_empty() {
        return "nobody is shut out\n".to_owned();
    }
    let mut table = Table::new([
        ("NETWORK", Align::Left),
        ("SERVICE", Align::Left),
        ("SINCE", Align::Right),
        ("ENDS IN", Align::Right),
    ]);
    for entry in &list.entries {
        let BlacklistEntry {
            prefix,
            service,
            age_seconds,
            expires_in_seconds,
        } = entry;
        table.row([
            prefix.clone(),
            service.clone().unwrap_or_else(|| "all".to_owned()),
            time(*age_seconds),
            expires_in_seconds.map_or("never".to_owned(), time),
        ]);
    }
    let mut text = String::new();
    table.write_to(&mut text);
    let kib = list.bytes.div_ceil(1024) as u64;
    let entries = match list.all {
        1 => "1 entry".to_owned(),
        n => format!("{} entries", grouped(n as u64)),
    };
    let _ = writeln!(text, "\n{entries}, {} KiB", grouped(kib));
    text
}

/// Seconds in the largest unit that loses little: "90s", "10m", "2h", "7d".
fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds.div_ceil(60)),
        7200..172_800 => format!("{}h", seconds.div_ceil(3600)),
        _ => format!("{}d", seconds.div_ceil(86_400)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_for_people() {
        let entry =
            |prefix: &str, service: Option<&str>, age_seconds, expires_in_seconds| BlacklistEntry {
                prefix: prefix.to_owned(),
                service: service.map(str::to_owned),
                age_seconds,
                expires_in_seconds,
            };
        let list = Blacklisted {
            entries: vec![
                entry("192.0.2.0/24", None, 7, Some(600)),
                entry("2001:db8::/32", Some("web"), 90_000, None),
            ],
            all: 2,
            bytes: 1500,
        };
        assert_eq!(
            human(&list),
            "NETWORK        SERVICE  SINCE  ENDS IN\n\
             192.0.2.0/24   all         7s      10m\n\
             2001:db8::/32  web        25h    never\n\n\
             2 entries, 2 KiB\n"
        );
        assert_eq!(
            told(&list, "is shut out").lines().next(),
            Some("192.0.2.0/24 is shut out for 10m")
        );
        let one = Blacklisted {
            entries: list.entries[..1].to_vec(),
            all: 1,
            bytes: 700,
        };
        assert!(human(&one).ends_with("\n\n1 entry, 1 KiB\n"));
        assert_eq!(
            human(&Blacklisted {
                entries: vec![],
                all: 0,
                bytes: 0
            }),
            "nobody is shut out\n"
        );
        let prefix = "2001:db8::/32".parse().unwrap();
        assert_eq!(
            target(prefix, Some("web"), Some(Duration::from_secs(2))),
            "/v1/blacklist?prefix=2001%3Adb8%3A%3A%2F32&service=web&milliseconds=2000"
        );
    }
}
