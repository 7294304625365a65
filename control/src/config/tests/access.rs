//! Access lists: from what is written to who is let in.

use std::net::IpAddr;
use std::sync::Arc;

use super::*;

/// [`BASE`] with `access` as web's, and `lists` at the end.
fn file(access: &str, lists: &str) -> String {
    let forward = "forward = \"fullnat\"\n";
    BASE.replacen(forward, &format!("{forward}access = {access}\n"), 1) + lists
}

/// Whether web takes these clients.
fn takes<const N: usize>(text: &str, clients: [&str; N]) -> [bool; N] {
    let config = parse("weir.toml", text, &machine()).unwrap_or_else(|report| panic!("{report}"));
    let access = config.services[0].policy.access.clone().expect("a list");
    clients.map(|c| !access.denied.denies(c.parse::<IpAddr>().unwrap()))
}

const CLIENTS: [&str; 6] = [
    "10.1.0.1",
    "10.7.0.1",
    "10.7.7.1",
    "192.0.2.1",
    "2001:db8::1",
    "2001:db8:7::1",
];

#[test]
fn the_longest_network_decides_and_who_is_not_allowed_is_denied() {
    for (access, taken) in [
        // Deny alone: everybody else is let in.
        (
            r#"{ deny = ["10.7.0.0/16"] }"#,
            [true, false, false, true, true, true],
        ),
        // Allow alone: nobody else is, of either family.
        (
            r#"{ allow = ["10.0.0.0/8"] }"#,
            [true, true, true, false, false, false],
        ),
        (
            r#"{ allow = ["10.0.0.0/8", "10.7.7.0/24", "2001:db8::/32"], deny = ["10.7.0.0/16", "2001:db8:7::/48"] }"#,
            [true, false, true, false, true, false],
        ),
        // The same network in both: denied.
        (
            r#"{ allow = ["10.0.0.0/8", "::/0"], deny = ["10.0.0.0/8"] }"#,
            [false, false, false, false, true, true],
        ),
        // A list by its name, beside a network.
        (
            r#"{ allow = ["office", "2001:db8::1"] }"#,
            [false, true, true, false, true, false],
        ),
    ] {
        let lists = "[[access_list]]\nname = \"office\"\nnetworks = [\"10.7.0.0/16\"]\n";
        assert_eq!(takes(&file(access, lists), CLIENTS), taken, "{access}");
    }
    let config = parse("weir.toml", BASE, &machine()).unwrap();
    assert_eq!(config.services[0].policy.access, None);
}

/// A directory of this test's own.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let directory = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Directory(directory)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }

    /// Reads `text` as a file in this directory.
    fn parse(&self, text: &str) -> Result<Config, Report> {
        parse(
            &self.0.join("weir.toml").display().to_string(),
            text,
            &machine(),
        )
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a leftover in /tmp harms nobody
    }
}

#[test]
fn files_beside_the_configuration_and_one_compiled_list_for_all_who_share_it() {
    let directory = Directory::new("access-files");
    directory.write(
        "bad.txt",
        "# who\n10.7.0.0/16\n\n 192.0.2.1   # a host\n2001:db8:7::/48\n",
    );
    let access = "access = { deny_file = \"bad.txt\", close_denied = true }\n";
    let text = BASE.replace("protocol = ", &format!("{access}protocol = "));
    let config = directory
        .parse(&text)
        .unwrap_or_else(|report| panic!("{report}"));
    let lists = [0, 1].map(|n: usize| config.services[n].policy.access.clone().unwrap());
    assert!(Arc::ptr_eq(&lists[0], &lists[1]));
    assert_eq!((lists[0].prefixes, lists[0].closes), (3, true));
    let denied = CLIENTS.map(|c| lists[0].denied.denies(c.parse().unwrap()));
    assert_eq!(denied, [false, true, true, true, false, true]);
    // The same networks, otherwise written, are the same list to a reload.
    directory.write(
        "bad.txt",
        "2001:db8:7::/48\n192.0.2.1/32\n10.7.0.0/17\n10.7.128.0/17\n",
    );
    let again = directory.parse(&text).unwrap();
    let again = again.services[0].policy.access.clone().unwrap();
    assert_eq!(again.denied, lists[0].denied);

    directory.write("bad.txt", "10.7.0.0/16\n10.7.0.1/16\n");
    let report = directory.parse(&text).unwrap_err().to_string();
    let want = "service \"web\": access: deny_file = \"bad.txt\": line 2: 10.7.0.1/16 has host \
                bits; write \"10.7.0.0/16\"";
    assert!(report.contains(want), "{report}");
    std::fs::remove_file(directory.0.join("bad.txt")).unwrap();
    let report = directory.parse(&text).unwrap_err().to_string();
    assert!(
        report.contains("deny_file = \"bad.txt\": cannot be read: No such file"),
        "{report}"
    );
}
